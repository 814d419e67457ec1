"""Latency and throughput of predictions, beside the floor (hello world) and the naive peer (FastAPI + scikit-learn)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import joblib

from benchmarks import data, mill
from benchmarks.contest import PARALLEL, Contender, Measured, contest, granian_hello, gunicorn_hello, samples, serving
from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from benchmarks.system import MODELS, System, running
from modelmill.local import free_port
from modelmill.settings import Settings

HELLO, PEER = "Flask hello world on Granian", "FastAPI + joblib + scikit-learn, by value"


def measure(effort: Effort) -> list[Table]:
    """Every contender in turn, as often as `effort` says."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = list(_contenders(stack, stack.enter_context(running()), folder))
        return [_table(contest(contenders, effort))]


def _contenders(stack: ExitStack, system: System, folder: Path) -> Iterator[Contender]:
    by_key, by_value = data.write_bodies(folder)
    port = free_port()
    pids = stack.enter_context(serving(granian_hello(port), port))
    yield Contender(HELLO, "", f"http://127.0.0.1:{port}", by_key, pids)
    port = free_port()
    pids = stack.enter_context(serving(gunicorn_hello(port), port))
    yield Contender("Flask hello world on Gunicorn", "", f"http://127.0.0.1:{port}", by_key, pids)
    for model in MODELS:
        port = free_port()
        pids = stack.enter_context(serving(_uvicorn(port), port, BENCH_MODEL=_joblib(model, folder)))
        yield Contender(PEER, model, f"http://127.0.0.1:{port}", by_value, pids)
    for model in MODELS:
        system.train(model)
    pids = tuple(system.pids()["predictor"])
    for name, bodies in (("Modelmill, by value", by_value), ("Modelmill, by user_id", by_key)):
        for model in MODELS:
            yield Contender(name, model, system.predict_url(model), bodies, pids)


def _uvicorn(port: int) -> list[str]:
    size = ["--workers", str(Settings.read().workers), "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.peer:build", *size, "--port", str(port)]


def _joblib(model: str, folder: Path) -> str:
    """A file with the estimator of `model`, fitted on the users as a plain array (which it answers fastest)."""
    rows = data.users()
    file = folder / f"{model}.joblib"
    joblib.dump(getattr(mill, model)().fit(rows[mill.FEATURES].to_numpy(), rows["target"].to_numpy()), file)
    return str(file)


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
    note = (
        f"Latencies at 1 connection, requests/s at {PARALLEL}; the next two columns are ratios of it; CPU ms is"
        f" the time that the server's own processes (without Redis) computed for one request, at {PARALLEL}."
    )
    return Table("Predictions", columns, rows, note, samples(measured))
