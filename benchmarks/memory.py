"""Memory of every process, and what swaps add to the predictor's."""

from __future__ import annotations

import tempfile
from itertools import cycle, islice
from pathlib import Path

from benchmarks import data, processes, wrk
from benchmarks.effort import Effort
from benchmarks.processes import Memory
from benchmarks.report import Cell, Table
from benchmarks.system import MODELS, System, running, until

STEPS = 4
"""How often the predictor is looked at on the way through the swaps."""


def measure(effort: Effort) -> list[Table]:
    """Look at all processes before and after load, then at the predictor while versions of the largest model swap."""
    with running() as system, tempfile.TemporaryDirectory() as folder:
        before = _memory(system)
        versions = {model: [system.train(model), system.train(model)] for model in MODELS}
        _load(system, Path(folder), effort)
        processes_table = _processes_table(system, before, effort)
        swaps_table = _swaps_table(system, versions["forest"], effort)
    return [processes_table, swaps_table]


def _memory(system: System) -> dict[str, Memory]:
    return {name: processes.memory(pids) for name, pids in system.pids().items()}


def _load(system: System, folder: Path, effort: Effort) -> None:
    file = folder / "readings.csv"
    data.readings(effort.rows).to_csv(file, index=False)
    system.client.ingest("readings", file)
    for bodies in data.write_bodies(folder):
        for model in MODELS:
            wrk.post(system.predict_url(model), bodies, connections=8, seconds=effort.seconds)


def _processes_table(system: System, before: dict[str, Memory], effort: Effort) -> Table:
    after = _memory(system)
    rows: list[list[Cell]] = []
    for name, pids in system.pids().items():
        rows.append([name, len(pids), before[name].proportional, after[name].proportional, after[name].resident])
    sums = [sum(amounts) for amounts in zip(*(row[1:] for row in rows), strict=True)]
    rows.append(["all", *sums])
    note = (
        f"Started, with {data.USERS:,} rows ingested; and after 4 trainings, an ingest of {effort.rows:,} rows as CSV"
        f" and {4 * effort.seconds} s of predictions at 8 connections. PSS counts shared pages once, RSS in each"
        " process. A service is Granian and its worker; `worker` trains in a process of its own that has ended by now."
    )
    columns = ["program", "processes", "PSS MB, started", "PSS MB, after load", "RSS MB, after load"]
    return Table("Memory", columns, rows, note)


def _swaps_table(system: System, versions: list[int], effort: Effort) -> Table:
    pids = system.pids()["predictor"]
    first = now = processes.memory(pids)
    rows: list[list[Cell]] = [[0, now.resident, now.proportional, None]]
    swaps, step = cycle(versions), effort.memory_swaps // STEPS
    for done in range(step, effort.memory_swaps + 1, step):
        for version in islice(swaps, step):
            system.registry.promote("forest", version, by="benchmark")
            until(lambda version=version: system.served("forest") == version, f"version {version}")  # type: ignore[misc]
        now = processes.memory(pids)
        rows.append([done, now.resident, now.proportional, (now.proportional - first.proportional) / done * 1000])
    columns = ["swaps", "RSS MB", "PSS MB", "KB a swap since the first"]
    return Table("Predictor's memory over swaps of the forest", columns, rows)
