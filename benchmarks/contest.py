"""Competitors that get the same load in turn, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

import httpx

from benchmarks import processes, wrk
from benchmarks.effort import Effort
from benchmarks.system import until
from benchmarks.wrk import Load
from modelmill.settings import Settings

PARALLEL = 8
"""Connections when throughput is measured."""


@dataclass(frozen=True)
class Contender:
    """A server that takes part, and the requests that it gets."""

    name: str
    model: str
    url: str
    bodies: Path
    pids: tuple[int, ...]

    def load(self, connections: int, seconds: int) -> Load:
        """Send it requests for so long."""
        return wrk.post(self.url, self.bodies, connections=connections, seconds=seconds)


@dataclass
class Measured:
    """What one contender showed: a load at one connection and one at `PARALLEL` a repeat, and CPU time a request."""

    alone: list[Load]
    parallel: list[Load]
    cpu_ms: list[float]

    def latency(self, quantile: str) -> float:
        """Median over the repeats of a quantile of the latency at one connection, in milliseconds."""
        return float(median(getattr(load, quantile) for load in self.alone))

    @property
    def per_second(self) -> float:
        """Median over the repeats of the answers per second at `PARALLEL` connections."""
        return median(load.per_second for load in self.parallel)


def contest(contenders: Sequence[Contender], effort: Effort) -> dict[Contender, Measured]:
    """Every contender in turn, as often as `effort` says."""
    measured = {contender: Measured([], [], []) for contender in contenders}
    for contender in contenders:
        contender.load(PARALLEL, seconds=1)  # to warm up
    for _ in range(effort.repeats):
        for contender in contenders:
            _measure(contender, effort.seconds, measured[contender])
    return measured


def samples(measured: dict[Contender, Measured]) -> dict[str, list[float]]:
    """The single measurements behind the medians."""
    found = {}
    for contender, results in measured.items():
        name = f"{contender.name} {contender.model}".strip()
        found[f"{name} p50 ms"] = [load.p50 for load in results.alone]
        found[f"{name} requests/s"] = [load.per_second for load in results.parallel]
        found[f"{name} p99 ms at {PARALLEL}"] = [load.p99 for load in results.parallel]
    return found


@contextmanager
def serving(
    command: list[str], port: int, log: IO[bytes] | None = None, **environment: str
) -> Iterator[tuple[int, ...]]:
    """Run a server until the block ends; yields the ids of its processes once it answers.

    What it logs goes to `log`, by default to where ours goes.
    """
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=log)
    try:
        until(lambda: _answers(port), " ".join(command))
        yield tuple(processes.tree(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=20)


def granian_hello(port: int) -> list[str]:
    """The command that serves `benchmarks.hello` as every Modelmill service is served."""
    return [sys.executable, "-m", "benchmarks.hello", str(port)]


def gunicorn_hello(port: int) -> list[str]:
    """The command that serves it on Gunicorn with as many processes and threads."""
    settings = Settings.read()
    size = f"--worker-class gthread --workers {settings.workers} --threads {settings.threads}".split()
    quiet = ["--log-level", "warning", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", *size, *quiet, "--bind", f"127.0.0.1:{port}", "benchmarks.hello:build()"]


def _measure(contender: Contender, seconds: int, measured: Measured) -> None:
    measured.alone.append(contender.load(1, seconds))
    before = processes.cpu_seconds(contender.pids)
    load = contender.load(PARALLEL, seconds)
    measured.parallel.append(load)
    measured.cpu_ms.append((processes.cpu_seconds(contender.pids) - before) / load.requests * 1000)


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1)
    except httpx.TransportError:
        return False
    return True
