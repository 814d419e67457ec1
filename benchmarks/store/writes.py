"""Rows a second into the online store, and durably over HTTP."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks import ingest
from benchmarks.effort import Effort
from benchmarks.feast.peer import Feast
from benchmarks.ingest import BASELINE, Way
from benchmarks.report import Cell, Table
from benchmarks.system import System

FEAST = "Feast, write_to_online_store"


def measure(system: System, feast: Feast, folder: Path, effort: Effort) -> Table:
    """Write the same rows in each way in turn, each time into an online store without them."""
    ways = ingest.ways(system, folder, effort.rows)
    path = str(folder / "readings.parquet")
    ways[FEAST] = Way(lambda: feast.program.ask("write", path=path), feast.redis.flushall, feast.redis.dbsize)
    measured = ingest.rates(ways, effort)
    found = {name: median(rates) for name, rates in measured.items()}
    rows: list[list[Cell]] = [[name, rate, rate / found[BASELINE], rate / found[FEAST]] for name, rate in found.items()]
    note = ingest.note(effort.rows) + " Feast writes its hashes from a DataFrame, in process; it keeps no history."
    return Table("Writes", ["way", "rows/s", f"/ {BASELINE}", "/ Feast"], rows, note, measured)
