"""Rows a second into history and online store, beside Redis's own bulk load of the very same hashes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from benchmarks.system import MILL, System, running
from modelmill.declare import definitions_file
from modelmill.state import keys
from services.feature.store import online

BATCH = 1000
BASELINE = "redis-cli --pipe"


@dataclass(frozen=True)
class Way:
    """One way to bring the rows online."""

    load: Callable[[], object]
    forget: Callable[[], object]
    """Empties the online store, before each load."""
    online: Callable[[], int]
    """Entities that are in it."""


def measure(effort: Effort) -> list[Table]:
    """Load the same rows in each way in turn, each time into an online store without them."""
    with running() as system, tempfile.TemporaryDirectory() as folder:
        measured = rates(ways(system, Path(folder), effort.rows), effort)
    found = {name: median(rates) for name, rates in measured.items()}
    rows: list[list[Cell]] = [[name, rate, rate / found[BASELINE]] for name, rate in found.items()]
    return [Table("Ingest", ["way", "rows/s", f"/ {BASELINE}"], rows, note(effort.rows), measured)]


def rates(ways: Mapping[str, Way], effort: Effort) -> dict[str, list[float]]:
    """Rows a second of each way, measured in turn as often as `effort` says."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(effort.repeats):
        for name, way in ways.items():
            way.forget()
            started = time.perf_counter()
            way.load()
            measured[name].append(effort.rows / (time.perf_counter() - started))
            if (found := way.online()) != effort.rows:
                raise RuntimeError(f"{found} of {effort.rows} entities are online after {name}")
    return measured


def note(rows: int) -> str:
    """What is measured."""
    return (
        f"{rows:,} rows of 10 floats and a key in one request. Over HTTP a row is validated, in the history on"
        " disk (fsync), then online, then acknowledged; the other two only write the hashes."
    )


def ways(system: System, folder: Path, rows: int) -> dict[str, Way]:
    """The ways into Modelmill, and Redis's own."""
    frame = data.readings(rows)
    frame.to_csv(folder / "readings.csv", index=False)
    frame.to_parquet(folder / "readings.parquet", index=False)
    system.client.ingest("readings", folder / "readings.parquet")
    commands = folder / "readings.resp"
    commands.write_bytes(_resp(system))
    loads: dict[str, Callable[[], object]] = {
        BASELINE: lambda: _pipe(system, commands),
        "online write alone, in process": _writer(system),
        "HTTP, Parquet": lambda: system.client.ingest("readings", folder / "readings.parquet"),
        "HTTP, CSV": lambda: system.client.ingest("readings", folder / "readings.csv"),
    }
    return {name: Way(load, lambda: _forget(system), lambda: len(_stored(system))) for name, load in loads.items()}


def _stored(system: System) -> list[str]:
    return list(system.redis.scan_iter(match=keys.feature("sensor", "*"), count=BATCH))


def _forget(system: System) -> None:
    found = _stored(system)
    with system.redis.pipeline(transaction=False) as pipe:
        for start in range(0, len(found), BATCH):
            pipe.delete(*found[start : start + BATCH])
        pipe.execute()


def _resp(system: System) -> bytes:
    """Commands that write the hashes that are stored now, as the server takes them on the wire."""
    redis = system.redis
    names = _stored(system)
    commands = []
    for start in range(0, len(names), BATCH):
        with redis.pipeline(transaction=False) as pipe:
            for name in names[start : start + BATCH]:
                pipe.hgetall(name)
            for name, found in zip(names[start:], pipe.execute(), strict=False):
                commands.append(_command("HSET", name, *(text for pair in found.items() for text in pair)))
    return b"".join(commands)


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _pipe(system: System, commands: Path) -> None:
    binary = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if binary is None:
        raise SystemExit("this benchmark needs redis-cli; on Debian: apt install redis-tools")
    port = str(urlsplit(system.client.settings.redis_url).port)
    with commands.open("rb") as file:
        subprocess.run([binary, "-p", port, "--pipe"], stdin=file, check=True, capture_output=True, timeout=600)


def _writer(system: System) -> Callable[[], object]:
    """Writes the rows of the only history file of the readings online."""
    (file,) = (system.local.home / "storage" / "history" / "readings").rglob("*.parquet")
    table: pa.Table = pq.read_table(file)
    declared = definitions_file.load(MILL)
    source = declared.source("readings")
    return lambda: online.write(system.redis, source, list(declared.columns(source)), table)
