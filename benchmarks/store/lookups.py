"""Latency of looking the ten features of one entity and of a hundred up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import orjson

from benchmarks import data, wrk
from benchmarks.effort import Effort
from benchmarks.feast.peer import Feast
from benchmarks.report import Cell, Table
from benchmarks.system import System

COUNTS = (1, 100)
"""Entities of one lookup."""
IN_PROCESS = {1: 2000, 100: 200}
"""Lookups a second of effort that are asked of Feast's library: about as many as it answers."""

Latency = tuple[float, float]
"""p50 and p99, in milliseconds."""


def measure(system: System, feast: Feast, folder: Path, effort: Effort) -> Table:
    """Look up in each way in turn, one lookup after the other."""
    rows: list[list[Cell]] = []
    samples: dict[str, list[float]] = {}
    for count in COUNTS:
        ways = _ways(system, feast, folder, effort, count)
        measured: dict[str, list[Latency]] = {name: [] for name in ways}
        for _ in range(effort.repeats):
            for name, look_up in ways.items():
                measured[name].append(look_up())
        for name, found in measured.items():
            rows.append([count, name, *(median(latency[i] for latency in found) for i in (0, 1))])
            samples[f"{count}, {name}, p50 ms"] = [p50 for p50, _ in found]
            samples[f"{count}, {name}, p99 ms"] = [p99 for _, p99 in found]
    note = f"Of {effort.rows:,} entities, chosen at random. Over HTTP on one connection that stays open."
    return Table("Lookups of 10 features", ["entities", "way", "p50 ms", "p99 ms"], rows, note, samples)


def _ways(system: System, feast: Feast, folder: Path, effort: Effort, count: int) -> dict[str, Callable[[], Latency]]:
    random = np.random.default_rng(data.SEED)

    def keys(lookups: int) -> list[list[str]]:
        return [
            [data.sensor_id(n) for n in some] for some in random.integers(0, effort.rows, (lookups, count)).tolist()
        ]

    ours, theirs = folder / f"ours-{count}.txt", folder / f"theirs-{count}.txt"
    chosen = keys(data.BODIES)
    ours.write_bytes(b"".join(orjson.dumps({"keys": some}) + b"\n" for some in chosen))
    theirs.write_bytes(b"".join(orjson.dumps(feast.request(some)) + b"\n" for some in chosen))
    in_process = keys(IN_PROCESS[count] * effort.seconds)
    url = f"{system.client.settings.feature_url}/entities/sensor/lookup"
    return {
        "Feast, in process": lambda: _quantiles(feast.program.ask("lookup", keys=in_process)["ms"]),
        "Feast's server, HTTP": lambda: _load(feast.url, theirs, effort),
        "Modelmill, HTTP": lambda: _load(url, ours, effort),
    }


def _load(url: str, bodies: Path, effort: Effort) -> Latency:
    load = wrk.post(url, bodies, connections=1, seconds=effort.seconds)
    return load.p50, load.p99


def _quantiles(milliseconds: list[float]) -> Latency:
    p50, p99 = np.percentile(milliseconds, [50, 99]).tolist()
    return p50, p99
