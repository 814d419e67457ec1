"""Training frames: seconds from a DataFrame of keys and times to one with features, and rows that come back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks import data, frames
from benchmarks.effort import Effort
from benchmarks.feast.peer import Feast
from benchmarks.frames import Took
from benchmarks.mill import FEATURES
from benchmarks.report import Cell, Table
from benchmarks.system import System

FEAST, OURS, ALONE = "Feast, get_historical_features", "Modelmill, HTTP", "Modelmill, in process"


def measure(system: System, feast: Feast, folder: Path, effort: Effort) -> Table:
    """Join in each way in turn; and once more, in a process whose memory is measured, what Feast is not asked for."""
    stored, asked = effort.rows, effort.rows // 2
    spine = data.measurements(asked, data.SEED + 1)[["station_id", "at"]].rename(columns={"at": "event_timestamp"})
    ways = _ways(system, feast, folder, spine)
    measured: dict[str, list[Took]] = {name: [] for name in ways}
    for _ in range(effort.repeats):
        for name, join in ways.items():
            measured[name].append(join())
    rows = [_row(stored, asked, name, took) for name, took in measured.items()]
    base = median(took.seconds for took in measured[FEAST])
    for row, took in zip(rows, measured.values(), strict=True):
        row[-1] = base / median(one.seconds for one in took)
    stored, asked = effort.history_rows, effort.history_rows // 10
    with tempfile.TemporaryDirectory() as large:
        frames.prepare(Path(large), stored, asked)
        alone = [frames.measured("event", large) for _ in range(effort.repeats)]
    rows.append(_row(stored, asked, ALONE, alone))
    note = (
        "10 floats. Feast's offline store is a Parquet file of the same history. In process: from Parquet spine and"
        " Parquet history to a Parquet frame, with the highest resident memory of that process."
    )
    columns = ["history rows", "spine rows", "way", "seconds", "rows returned", "with values", "peak MB", "times Feast"]
    samples = {name: [one.seconds for one in took] for name, took in (measured | {ALONE: alone}).items()}
    return Table("Training frames beside Feast", columns, rows, note, samples)


def _ways(system: System, feast: Feast, folder: Path, spine: pd.DataFrame) -> dict[str, Callable[[], Took]]:
    path = folder / "spine.parquet"
    spine.to_parquet(path, index=False)
    features = [f"station.{name}" for name in FEATURES]

    def theirs() -> Took:
        found = feast.program.ask("join", path=str(path))
        return Took(found["seconds"], 0, found["rows"], found["found"])

    def ours() -> Took:
        started = time.perf_counter()
        frame = system.client.training_frame(spine=spine, features=features, time="event_timestamp")
        seconds = time.perf_counter() - started
        return Took(seconds, 0, len(frame), int(frame[features[0]].notna().sum()))

    return {FEAST: theirs, OURS: ours}


def _row(stored: int, asked: int, way: str, took: list[Took]) -> list[Cell]:
    peak = max(one.peak_mb for one in took)
    return [stored, asked, way, median(one.seconds for one in took), took[0].rows, took[0].found, peak or None, None]
