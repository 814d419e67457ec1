"""WSGI servers beside each other: the same bare Flask app on each, with as many processes and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import data, processes
from benchmarks.contest import PARALLEL, Contender, Measured, contest, granian_hello, gunicorn_hello, samples, serving
from benchmarks.effort import Effort
from benchmarks.report import Cell, Table
from modelmill.local import free_port

SERVERS: dict[str, Callable[[int], list[str]]] = {
    "Granian": granian_hello,
    "Gunicorn, gthread": gunicorn_hello,
}
"""Server to the command that runs it on a port. Ratios are to the last one."""


def measure(effort: Effort) -> list[Table]:
    """Every server in turn, as often as `effort` says."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies, _ = data.write_bodies(folder)
        contenders = []
        for name, command in SERVERS.items():
            port = free_port()
            pids = stack.enter_context(serving(command(port), port))
            contenders.append(Contender(name, "", f"http://127.0.0.1:{port}", bodies, pids))
        measured = contest(contenders, effort)
        memory = {contender: processes.memory(contender.pids).proportional for contender in contenders}
    return [_table(measured, memory)]


def _table(measured: dict[Contender, Measured], memory: dict[Contender, float]) -> Table:
    floor = list(measured.values())[-1].per_second
    rows: list[list[Cell]] = [
        [
            contender.name,
            *(found.latency(quantile) for quantile in ("p50", "p99")),
            found.per_second,
            found.per_second / floor,
            median(load.p99 for load in found.parallel),
            median(found.cpu_ms),
            memory[contender],
        ]
        for contender, found in measured.items()
    ]
    columns = ["server", "p50 ms", "p99 ms", "requests/s", "ratio", f"p99 ms at {PARALLEL}", "CPU ms", "MB"]
    note = (
        f"A bare Flask app. The first two columns at 1 connection, the others at {PARALLEL}; CPU ms is what the"
        " server's own processes computed for one request, MB their memory (PSS) after the load."
    )
    return Table("WSGI servers", columns, rows, note, samples(measured))
