"""What a training's process takes: memory and processor time, with those of the processes that it started."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MB = 1_000_000
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Memory in MB, processor time in seconds."""

    peak_memory_mb: float
    cpu_seconds: float


def of_this_process() -> Usage:
    """What this process and its children have taken so far.

    The peaks of children that live are added to its own, though they need not have come at the same time; of children
    that have ended the largest one counts where it is larger than all that.
    """
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    living = [_of_child(pid) for pid in descendants(os.getpid())]
    peak = own.ru_maxrss * _RSS_UNIT / MB + sum(child.peak_memory_mb for child in living)
    seconds = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
    return Usage(
        round(max(peak, ended.ru_maxrss * _RSS_UNIT / MB), 1),
        round(seconds + sum(child.cpu_seconds for child in living), 3),
    )


def of_ended(taken: resource.struct_rusage) -> Usage:
    """What a process had taken that was waited for."""
    return Usage(round(taken.ru_maxrss * _RSS_UNIT / MB, 1), round(taken.ru_utime + taken.ru_stime, 3))


def children(pid: int) -> frozenset[int]:
    """The processes that `pid` is the parent of, ended ones too until it has waited for them; only Linux tells."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return frozenset(int(child) for task in tasks for child in _text(task).split())


def descendants(pid: int) -> Iterator[int]:
    """The processes below `pid`."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def _of_child(pid: int) -> Usage:
    peak = next((line.split()[1] for line in _text(Path(f"/proc/{pid}/status")).splitlines() if "VmHWM" in line), "0")
    times = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return Usage(int(peak) * 1024 / MB, sum(map(int, times[11:15])) / _TICKS)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has just ended
        return ""
