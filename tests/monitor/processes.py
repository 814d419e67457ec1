"""The monitor as a process of its own, that a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from modelmill.local import free_port
from tests.conftest import ROOT
from tests.eventually import eventually


@dataclass
class MonitorProcess:
    """`python -m services.monitor.main` on a free port; its log is `log`."""

    redis_url: str
    log: Path
    workers: int = 1
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = {
            "MODELMILL_REDIS_URL": self.redis_url,
            "MODELMILL_PORT": str(self.port),
            "MODELMILL_WORKERS": str(self.workers),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.monitor.main"],
                cwd=ROOT,
                env=os.environ | settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until_ready(self) -> None:
        eventually(
            lambda: httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200,
            within=20,
            saying=f"the monitor is ready; its log: {self.log}",
        )

    def kill(self) -> None:
        """End the process and its workers as a crash would: SIGKILL, at whatever they were doing."""
        assert self.process is not None
        os.killpg(self.process.pid, 9)  # the process leads its session, so this reaches only its own workers
        self.process.wait(timeout=10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()
