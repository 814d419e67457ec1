"""Training frames: seconds and peak memory for joining a spine with history, beside `pandas.merge_asof`.

`python -m benchmarks.frames WAY FOLDER` joins what `prepare` wrote to FOLDER in one way, in a process of its own, and
prints what it took.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from subprocess import run

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import SEED
from benchmarks.effort import Effort
from benchmarks.mill import FEATURES
from benchmarks.report import Cell, Table
from benchmarks.system import MILL
from modelmill.declare import definitions_file
from modelmill.storage import Storage
from services.feature.http.frame_requests import PARQUET, encoded, frame_of_spine
from services.feature.rows.derive import FAILED
from services.feature.rows.schema import EVENT_TIME, TIME
from services.feature.store import history

FILE_ROWS = 500_000
"""Rows of one history file, as one ingest leaves it."""
START = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = 365 * 86_400 * 1_000_000
"""Event times lie within a year, in microseconds."""


@dataclass(frozen=True)
class Took:
    """One join, from the files to the file."""

    seconds: float
    peak_mb: float
    """Resident memory at its highest, MB (10^6 bytes), with Python and its libraries."""
    rows: int
    found: int
    """Rows that have values."""


def measure(effort: Effort) -> list[Table]:
    """Join in each way in turn, a small history and a large one."""
    rows: list[list[Cell]] = []
    samples: dict[str, list[float]] = {}
    for stored, spine in dict.fromkeys([(100_000, 50_000), (effort.history_rows, effort.history_rows // 10)]):
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), stored, spine)
            took = {way: [measured(way, folder) for _ in range(effort.repeats)] for way in WAYS}
        base = median(one.seconds for one in took[BASELINE])
        for way, joins in took.items():
            _check(joins, spine, took["event"][0].found if way == BASELINE else None)
            seconds = median(one.seconds for one in joins)
            rows.append([stored, spine, way, seconds, base / seconds, max(one.peak_mb for one in joins)])
            samples[f"{way}, {stored} rows"] = [one.seconds for one in joins]
    note = (
        f"In process, from Parquet spine and Parquet history to a Parquet frame of {len(FEATURES)} floats; a tenth as"
        " many keys as rows of history. `known` hides what was ingested after the spine row's time, too."
    )
    columns = ["history rows", "spine rows", "way", "seconds", f"times {BASELINE}", "peak MB"]
    return [Table("Training frames", columns, rows, note, samples)]


def prepare(folder: Path, stored: int, spine: int) -> None:
    """Write so many rows of history and of a spine to `folder`."""
    random = np.random.default_rng(SEED)
    declared = definitions_file.load(MILL)
    schema = history.schema(declared, declared.source("readings"))
    storage = Storage((folder / "storage").as_uri())

    def keyed(rows: int) -> tuple[pa.Array, np.ndarray]:
        keys = np.char.add("sensor-", random.integers(0, max(stored // 10, 1), rows).astype(str))
        return pa.array(keys), int(START.timestamp() * 1e6) + random.integers(0, SPAN, rows)

    for first in range(0, stored, FILE_ROWS):
        count = min(FILE_ROWS, stored - first)
        keys, times = keyed(count)
        columns = {
            "sensor_id": keys,
            **{name: random.normal(size=count) for name in FEATURES},
            EVENT_TIME: times,
            history.INGEST_TIME: times + random.integers(0, SPAN // 12, count),
            FAILED: pa.nulls(count, pa.string()),
        }
        day = START + timedelta(days=first // FILE_ROWS)
        name = f"history/readings/day={day:%Y-%m-%d}/{day:%Y%m%dT%H%M%S.%f}Z-{first:08x}.parquet"
        history.write(storage, name, pa.table(columns, schema))
    keys, times = keyed(spine)
    spine_table = pa.table({"sensor_id": keys, "event_time": pa.array(times, TIME), "label": random.normal(size=spine)})
    pq.write_table(spine_table, folder / "spine.parquet")


def measured(way: str, folder: str) -> Took:
    """Join what `prepare` wrote in one way, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.frames", way, folder]
    return Took(**orjson.loads(run(command, check=True, capture_output=True, timeout=1200).stdout))


def _check(measured: list[Took], spine: int, found: int | None) -> None:
    for one in measured:
        if one.rows != spine or found not in (None, one.found):
            raise RuntimeError(f"a frame has {one.rows} rows, {one.found} with values; expected {spine}, {found}")


def _frame(folder: Path, as_of: str) -> None:
    storage, declared = Storage((folder / "storage").as_uri()), definitions_file.load(MILL)
    query = {"features": ",".join(FEATURES), "entities": "sensor", "as_of": as_of}
    with (folder / "spine.parquet").open("rb") as spine, (folder / "frame.parquet").open("wb") as file:
        for piece in encoded(frame_of_spine(storage, declared, spine, PARQUET, query), PARQUET):
            file.write(piece)


def _merge_asof(folder: Path) -> None:
    columns = ["sensor_id", EVENT_TIME, *FEATURES]
    files = sorted((folder / "storage").rglob("*.parquet"))
    rows = pd.concat([pd.read_parquet(file, columns=columns) for file in files], ignore_index=True)
    rows = rows.rename(columns={EVENT_TIME: "event_time"}).sort_values("event_time", kind="stable")
    spine = pd.read_parquet(folder / "spine.parquet").reset_index().sort_values("event_time", kind="stable")
    joined = pd.merge_asof(spine, rows, on="event_time", by="sensor_id")
    joined.sort_values("index").drop(columns="index").to_parquet(folder / "frame.parquet", index=False)


BASELINE = "pandas merge_asof"
WAYS: dict[str, Callable[[Path], None]] = {
    BASELINE: _merge_asof,
    "event": lambda folder: _frame(folder, "event"),
    "known": lambda folder: _frame(folder, "known"),
}


def _peak_mb() -> float:
    """Of this program alone; what `getrusage` says includes the process that started it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6


def main(way: str, folder: Path) -> None:
    """Join in one way and print what it took."""
    started = time.perf_counter()
    WAYS[way](folder)
    seconds = time.perf_counter() - started
    frame = pq.ParquetFile(folder / "frame.parquet")
    peak = _peak_mb()
    values = frame.read([FEATURES[0]])[0]
    print(orjson.dumps(asdict(Took(seconds, peak, len(values), len(values) - values.null_count))).decode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
