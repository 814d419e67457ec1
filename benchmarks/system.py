"""A Modelmill of the benchmark's own: fresh state, free ports, nothing scheduled, nothing shared with a real one."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data, processes
from modelmill.client import Client
from modelmill.errors import RequestFailed
from modelmill.local import Local
from modelmill.state.connections import Redis, connect
from modelmill.state.registry import Registry

MILL = Path(__file__).with_name("mill.py")
MODELS = ("logistic", "forest")
WAIT = 60.0
"""Seconds that anything may take to become true."""


@dataclass(frozen=True)
class System:
    """A running system and the ways to it."""

    local: Local
    client: Client

    @property
    def redis(self) -> Redis:
        """A new client of its Redis."""
        return connect(self.client.settings.redis_url, timeout=10)

    @property
    def registry(self) -> Registry:
        """Its registry."""
        return Registry(self.redis)

    def predict_url(self, model: str) -> str:
        """Where `model` answers."""
        return f"{self.client.settings.predictor_url}/models/{model}/predict"

    def pids(self) -> dict[str, list[int]]:
        """The process ids of each of its programs, children included."""
        found = {}
        for process in self.local.processes():
            if match := re.match(r"pid (\d+)", process["detail"]):
                found[process["name"]] = processes.tree(int(match[1]))
        return found

    def train(self, model: str) -> int:
        """Train `model` and return the version once it is served."""
        job = self.client.train(model, by="benchmark", wait=True)
        if job["status"] != "finished":
            raise RuntimeError(f"training {model} {job['status']}: {job.get('error')}")
        version: int = self.client.get_run(job["run"])["version"]
        until(lambda: self.served(model) == version, f"version {version} of {model} to be served")
        return version

    def served(self, model: str) -> int | None:
        """The version of `model` that answers now; None where none does."""
        try:
            return int(self.client.predict(model, user_id=data.user_id(0))["version"])
        except RequestFailed:
            return None


@contextmanager
def running() -> Iterator[System]:
    """Start a system with the users ingested; stop it and remove its state in the end."""
    for name in ("REDIS_URL", "MODELMILL_REDIS_URL"):  # what lies in that Redis is not ours to overwrite
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="modelmill-benchmark-") as folder:
        local = Local.at(Path(folder), MILL, free_ports=True)
        client = Client(local.start(), timeout=60)
        try:
            client.ingest("users", data.users())
            until(lambda: all(p["state"] == "RUNNING" for p in local.processes()), "every process to run")
            yield System(local, client)
        finally:
            local.stop()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for `condition`.

    Raises:
        TimeoutError: where it is not met within `WAIT` seconds.
    """
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT:.0f} s for {what}")
        time.sleep(0.02)
