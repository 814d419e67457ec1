"""The predictor as its users meet it: processes of its own, asked over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from modelmill import local
from tests.conftest import ROOT
from tests.eventually import eventually


@dataclass
class PredictorProcess:
    """`python -m services.predictor.main` on a free port."""

    folder: Path
    redis_url: str
    storage_url: str
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=local.free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    @property
    def log(self) -> str:
        return (self.folder / "predictor.log").read_text()

    def start(self, *, ready: bool = True) -> None:
        """Start it and wait until it is up, or `ready`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MODELMILL_")}
        environment |= {
            "MODELMILL_REDIS_URL": self.redis_url,
            "MODELMILL_STORAGE_URL": self.storage_url,
            "MODELMILL_PORT": str(self.port),
            **self.settings,
        }
        command = [sys.executable, "-m", "services.predictor.main"]
        with (self.folder / "predictor.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        path = "/readyz" if ready else "/livez"
        eventually(lambda: self.get(path).status_code == 200, within=30, saying=f"{path} is 200")

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)

    def end(self) -> None:
        """Stop it if it runs, and close the client."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.client.close()

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def predict(self, body: Any, model: str = "user_target") -> httpx.Response:
        return self.client.post(f"/models/{model}/predict", json=body)

    def metric(self, line: str) -> float:
        """The value of the metric that begins with `line`; 0 where there is none."""
        for found in self.get("/metrics").text.splitlines():
            if found.startswith(line):
                return float(found.rsplit(" ", 1)[1])
        return 0.0
