"""Python programs of the project as processes of their own, that a test may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from modelmill.client import Client
from modelmill.local import Local, free_port
from tests.conftest import ROOT
from tests.eventually import eventually


@contextmanager
def system(mill: Path, home: Path) -> Iterator[Client]:
    """The whole system with the definitions `mill`, on free ports and with its state in `home`, as processes."""
    local = Local.at(home, mill, free_ports=True)
    try:
        with Client(local.start()) as client:
            yield client
    finally:
        local.stop()


@dataclass
class Server:
    """`python ARGUMENTS`, an HTTP server on a free port, with `settings` in its environment; its log is `log`."""

    arguments: Sequence[str]
    settings: Mapping[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=ROOT,
                env=os.environ | self.settings | {"MODELMILL_PORT": str(self.port)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until_ready(self, within: float = 20) -> None:
        eventually(
            lambda: httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200,
            within=within,
            saying=f"{self.arguments} is ready; its log: {self.log}",
        )

    def kill(self) -> None:
        """End the process and its workers as a crash would, at whatever they are doing."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)  # the process leads its session: this reaches its workers alone
        self.process.wait(timeout=10)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.kill()
