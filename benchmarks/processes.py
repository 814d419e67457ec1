"""Processes as Linux shows them under /proc: which belong together, what memory they hold, what CPU they used."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
"""Clock ticks a second, the unit of CPU times."""


@dataclass(frozen=True)
class Memory:
    """Memory of some processes in MB (10^6 bytes)."""

    resident: float
    """RSS: all pages that are in memory."""
    proportional: float
    """PSS: the same, but a page that n processes share counts 1/n in each, so that sums are true."""


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(descendant for child in children for descendant in tree(child))]


def memory(pids: Iterable[int]) -> Memory:
    """What the processes hold now."""
    sums = {"Rss": 0, "Pss": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, amount = line.partition(":")
            if name in sums:
                sums[name] += int(amount.split()[0])
    return Memory(sums["Rss"] * 1024 / 1e6, sums["Pss"] * 1024 / 1e6)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that the processes have used so far."""
    ticks = 0
    for pid in pids:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])  # utime and stime, fields 14 and 15 of proc(5)
    return ticks / TICKS
