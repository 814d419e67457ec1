"""Latency and throughput of predictions, beside the floor (hello world) and the naive peer (FastAPI + scikit-learn)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import joblib

from benchmarks import data, mill, processes, wrk
from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from benchmarks.system import MODELS, System, running, until
from benchmarks.wrk import Load
from modelmill.redis_server import free_port
from modelmill.settings import Settings

PARALLEL = 8
"""Connections when throughput is measured."""
HELLO, PEER = "Flask hello world on Granian", "FastAPI + joblib + scikit-learn, by value"


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


def measure(effort: Effort) -> list[Table]:
    """Every contender in turn, as often as `effort` says."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = list(_contenders(stack, stack.enter_context(running()), folder))
        measured = {contender: Measured([], [], []) for contender in contenders}
        for contender in contenders:
            contender.load(PARALLEL, seconds=1)  # to warm up
        for _ in range(effort.repeats):
            for contender in contenders:
                _measure(contender, effort.seconds, measured[contender])
    return [_table(measured)]


def _measure(contender: Contender, seconds: int, measured: Measured) -> None:
    measured.alone.append(contender.load(1, seconds))
    before = processes.cpu_seconds(contender.pids)
    load = contender.load(PARALLEL, seconds)
    measured.parallel.append(load)
    measured.cpu_ms.append((processes.cpu_seconds(contender.pids) - before) / load.requests * 1000)


def _contenders(stack: ExitStack, system: System, folder: Path) -> Iterator[Contender]:
    by_key, by_value = data.write_bodies(folder)
    port = free_port()
    pids = stack.enter_context(_serving([sys.executable, "-m", "benchmarks.hello", str(port)], port))
    yield Contender(HELLO, "", f"http://127.0.0.1:{port}", by_key, pids)
    port = free_port()
    pids = stack.enter_context(_serving(_gunicorn(port), port))
    yield Contender("Flask hello world on Gunicorn", "", f"http://127.0.0.1:{port}", by_key, pids)
    for model in MODELS:
        port = free_port()
        pids = stack.enter_context(_serving(_uvicorn(port), port, BENCH_MODEL=_joblib(model, folder)))
        yield Contender(PEER, model, f"http://127.0.0.1:{port}", by_value, pids)
    for model in MODELS:
        system.train(model)
    pids = tuple(system.pids()["predictor"])
    for name, bodies in (("Modelmill, by value", by_value), ("Modelmill, by user_id", by_key)):
        for model in MODELS:
            yield Contender(name, model, system.predict_url(model), bodies, pids)


def _gunicorn(port: int) -> list[str]:
    settings = Settings.read()
    size = f"--worker-class gthread --workers {settings.workers} --threads {settings.threads}".split()
    quiet = ["--log-level", "warning", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", *size, *quiet, "--bind", f"127.0.0.1:{port}", "benchmarks.hello:build()"]


def _uvicorn(port: int) -> list[str]:
    size = ["--workers", str(Settings.read().workers), "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.peer:build", *size, "--port", str(port)]


def _joblib(model: str, folder: Path) -> str:
    """A file with the estimator of `model`, fitted on the users as a plain array (which it answers fastest)."""
    rows = data.users()
    file = folder / f"{model}.joblib"
    joblib.dump(getattr(mill, model)().fit(rows[mill.FEATURES].to_numpy(), rows["target"].to_numpy()), file)
    return str(file)


@contextmanager
def _serving(command: list[str], port: int, **environment: str) -> Iterator[tuple[int, ...]]:
    """Run a server until the block ends; yields the ids of its processes once it answers."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port), " ".join(command))
        yield tuple(processes.tree(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1)
    except httpx.TransportError:
        return False
    return True


def _table(measured: dict[Contender, Measured]) -> Table:
    rate = {(contender.name, contender.model): found.per_second for contender, found in measured.items()}
    rows: list[list[Cell]] = [
        [
            contender.name,
            contender.model,
            *(found.latency(quantile) for quantile in ("p50", "p95", "p99")),
            found.per_second,
            found.per_second / rate[HELLO, ""],
            found.per_second / rate[PEER, contender.model] if contender.model else None,
            median(found.cpu_ms),
        ]
        for contender, found in measured.items()
    ]
    columns = ["server", "model", "p50 ms", "p95 ms", "p99 ms", "requests/s", "/ hello world", "/ FastAPI", "CPU ms"]
    samples = {}
    for contender, found in measured.items():
        samples[f"{contender.name} {contender.model} p50 ms"] = [load.p50 for load in found.alone]
        samples[f"{contender.name} {contender.model} requests/s"] = [load.per_second for load in found.parallel]
    note = (
        f"Latencies at 1 connection, requests/s at {PARALLEL}; the next two columns are ratios of it; CPU ms is"
        f" the time that the server's own processes (without Redis) computed for one request, at {PARALLEL}."
    )
    return Table("Predictions", columns, rows, note, samples)
