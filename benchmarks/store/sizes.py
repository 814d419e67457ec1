"""Bytes: of an entity in Redis, and of history on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.effort import Effort
from benchmarks.feast.peer import Feast
from benchmarks.mill import FEATURES
from benchmarks.report import Cell, Table
from benchmarks.system import System
from modelmill.state import keys
from modelmill.state.connections import Redis, connect

HASHES = 1000
"""Whose bytes are asked for."""
DECIMALS = 2
"""Of values as they are measured or paid, in contrast to those of a random number generator."""
RANDOM, ROUNDED = "random, 17 digits", f"rounded to {DECIMALS} decimals"


def online(system: System, feast: Feast, folder: Path) -> Table:
    """What Redis takes for an entity with ten floats, key included."""
    redis = connect(system.client.settings.redis_url, timeout=60, text=False)
    names = [keys.feature("sensor", data.sensor_id(number)).encode() for number in range(HASHES)]
    rows: list[list[Cell]] = []
    for values, frame in _values(data.readings(HASHES)):
        file = folder / "sizes.parquet"
        frame.to_parquet(file, index=False)
        feast.redis.flushall()
        feast.program.ask("write", path=str(file))
        system.client.ingest("readings", file)
        ours, theirs = _bytes(redis, names), _bytes(feast.redis, feast.redis.keys())
        rows.append([values, theirs, ours, ours / theirs])
    note = (
        f"`MEMORY USAGE` of the whole hash with its key, median over {HASHES:,}. Feast's field names are hashes and its"
        " values protobuf; Modelmill's are the text that `redis-cli` shows, with event time and ingest time."
    )
    columns = ["values", "Feast, bytes", "Modelmill, bytes", "/ Feast"]
    return Table("Redis memory of an entity with 10 floats", columns, rows, note)


def history(system: System, folder: Path, effort: Effort) -> Table:
    """What the history takes on disk for the rows of one ingest, beside a Parquet file of the rows as they came."""
    storage = system.local.home / "storage"
    rows: list[list[Cell]] = []
    for values, frame in _values(data.measurements(effort.rows)):
        plain = folder / "plain.parquet"
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), plain, compression="zstd")
        stored = storage / system.client.ingest("measurements", frame)["file"]
        sizes = [file.stat().st_size / effort.rows for file in (plain, stored)]
        rows.append([values, *sizes, sizes[1] / sizes[0]])
    note = f"{effort.rows:,} rows of 10 floats, key and time, zstd both; the history has ingest times and failures too."
    columns = ["values", "plain Parquet, bytes a row", "history, bytes a row", "/ plain"]
    return Table("History on disk", columns, rows, note)


def _values(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    rounded = frame.assign(**{name: frame[name].round(DECIMALS) for name in FEATURES})
    return [(RANDOM, frame), (ROUNDED, rounded)]


def _bytes(redis: Redis, hashes: Sequence[bytes]) -> float:
    if len(hashes) != HASHES:
        raise RuntimeError(f"there are {len(hashes)} hashes; expected {HASHES}")
    return median(redis.memory_usage(name, samples=0) for name in hashes)
