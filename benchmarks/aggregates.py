"""A prediction from four windowed aggregates beside one from four columns: the same estimator, entity and request."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.contest import PARALLEL, Contender, contest, samples
from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from benchmarks.system import running

MODELS = ("four_columns", "four_aggregates")


def measure(effort: Effort) -> list[Table]:
    """Both in turn, as often as `effort` says."""
    with running() as system, tempfile.TemporaryDirectory() as folder:
        by_key, _ = data.write_bodies(Path(folder))
        system.client.ingest("visits", data.visits())
        system.client.ingest("users", data.users())  # labelled at a time that has visits before it
        for model in MODELS:
            system.train(model)
        pids = tuple(system.pids()["predictor"])
        measured = contest([Contender(m, "", system.predict_url(m), by_key, pids) for m in MODELS], effort)
    base, *_ = measured.values()
    rows: list[list[Cell]] = [
        [
            contender.name.replace("_", " "),
            *(found.latency(quantile) for quantile in ("p50", "p99")),
            found.latency("p50") / base.latency("p50"),
            found.per_second,
            found.per_second / base.per_second,
        ]
        for contender, found in measured.items()
    ]
    columns = ["predicted from", "p50 ms", "p99 ms", "/ columns", "requests/s", "/ columns"]
    note = f"By user_id; latencies at 1 connection, requests/s at {PARALLEL}. Windows of 2 h in 24 hops of 5 minutes."
    return [Table("Predictions from aggregates", columns, rows, note, samples(measured))]
