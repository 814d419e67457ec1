"""What a training costs beside the bare recipe: `fit` and `score` on the same rows of the flights example.

`python -m benchmarks.training MODEL FOLDER` fits and scores `FOLDER/frame.parquet` without Modelmill, in a process of
its own, and prints the seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from subprocess import run
from typing import Any

import numpy as np
import orjson
import pandas as pd

from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from examples.flights import __main__ as flights
from examples.flights import data
from modelmill.client import Client
from modelmill.declare import definitions_file

MILL = Path(data.__file__).with_name("mill.py")
MODEL = "flight_late_plain"
SMALL = 1_000
LARGE = 300_000
"""Rows, to train on and held out together."""


def measure(effort: Effort) -> list[Table]:
    """Train on a few rows and on many, in turn with the bare recipe."""
    rows: list[list[Cell]] = []
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, flights.running(Path(folder) / "home") as client:
        for month in range(1, effort.months + 1):
            flights.ingest(client, month)
        for wanted in dict.fromkeys((SMALL, min(LARGE, 25_000 * effort.months))):
            frame = client.training_frame(MODEL).dropna(subset=["late"])
            start = frame["_event_time"].iloc[-wanted] if len(frame) > wanted else frame["_event_time"].iloc[0]
            frame[frame["_event_time"] >= start].to_parquet(Path(folder) / "frame.parquet", index=False)
            _trained(client, start)  # the first one loads what all later ones find loaded
            pairs = [(_bare(folder), _trained(client, start)) for _ in range(effort.repeats)]
            rows.append(_row(pairs))
            samples[f"{wanted} rows, bare"] = [bare["seconds"] for bare, _ in pairs]
            samples[f"{wanted} rows, Modelmill"] = [took["all"] for _, took in pairs]
    note = (
        "Bare: read the joined frame from a Parquet file, `fit`, `roc_auc_score`, in a process that has loaded its"
        " libraries. Modelmill: from the start of the run to its registered and promoted version, with the join of"
        " the frame (`frame`), evaluation, card, package and gates. `more % but for the frame` leaves the"
        " join out of both."
    )
    columns = ["rows", "bare s", "Modelmill s", "more s", "more %", "more % but for the frame", *STAGES]
    return [Table("A training beside the bare recipe", columns, rows, note, samples)]


STAGES = ("frame", "fit", "evaluate", "package", "register")


def _row(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> list[Cell]:
    bare, without_read = (median(one[name] for one, _ in pairs) for name in ("seconds", "fit"))
    took = {name: median(one[name] for _, one in pairs) for name in ("all", *STAGES)}
    return [
        int(pairs[0][1]["rows"]),
        bare,
        took["all"],
        took["all"] - bare,
        100 * (took["all"] / bare - 1),
        100 * ((took["all"] - took["frame"]) / without_read - 1),
        *(took[stage] for stage in STAGES),
    ]


def _trained(client: Client, start: pd.Timestamp) -> dict[str, float]:
    """Seconds of a whole training and of its stages."""
    job = client.train(MODEL, start=start.isoformat(), by="benchmark", wait=True)
    if job["status"] != "finished":
        raise RuntimeError(f"training {job['status']}: {job.get('error')}")
    found: dict[str, Any] = client.get_run(job["run"])
    seconds = (pd.Timestamp(found["finished"]) - pd.Timestamp(found["started"])).total_seconds()
    return {"all": seconds, "rows": found["rows_train"] + found["rows_test"], **found["seconds"]}


def _bare(folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.training", MODEL, folder]
    found: dict[str, float] = orjson.loads(run(command, check=True, capture_output=True, timeout=1200).stdout)
    return found


def main(model: str, folder: Path) -> None:
    """Fit and score without Modelmill and print the seconds."""
    from sklearn.metrics import roc_auc_score

    recipe = definitions_file.load(MILL).model(model)
    estimator = recipe.estimator()
    estimator.__class__(max_iter=2).fit(np.random.default_rng(0).random((50, 2)), np.arange(50) % 2)
    started = time.perf_counter()
    frame = pd.read_parquet(folder / "frame.parquet").sort_values("_event_time", kind="stable")
    fitting = time.perf_counter()
    inputs, label = frame[[*recipe.features, *recipe.inputs]].astype(float), frame["late"].astype(int)
    cut = len(frame) - round(0.1 * len(frame))
    estimator.fit(inputs[:cut], label[:cut])
    roc_auc_score(label[cut:], estimator.predict_proba(inputs[cut:])[:, 1])
    ended = time.perf_counter()
    print(orjson.dumps({"seconds": ended - started, "fit": ended - fitting}).decode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
