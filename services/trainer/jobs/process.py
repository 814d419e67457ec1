"""The process in which a worker lets one attempt at a job be carried out, which RQ calls the work-horse."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from rq.timeouts import BaseDeathPenalty

from modelmill.state.connections import AWAY, Redis
from modelmill.state.runs import Run
from services.trainer.jobs.journal import Journal, log_entries

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
LOG_WRITE_SECONDS = 0.1
"""Seconds between two writes of log lines."""
LEASE_CHECK_SECONDS = 2.0
"""Seconds between two looks of the process at its own lease."""
LINGERING = 5.0
"""Seconds for which the processes that it leaves behind are killed again and again, should they start others."""
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that people and systems send; a process gets the others for what it did."""


class Unlimited(BaseDeathPenalty):
    """No time limit inside the process, where code could catch it: the worker keeps it from outside."""

    def setup_death_penalty(self) -> None:
        """Nothing."""

    def cancel_death_penalty(self) -> None:
        """Nothing."""


class Horse:
    """A forked process: wait for it, kill it, take in what it writes.

    Those that it starts, daemons in sessions of their own too, become children of this process when they lose their
    parents (on Linux), and are killed with it.
    """

    def __init__(self, pid: int, output: Output, others: frozenset[int], scratch: TemporaryDirectory[str]) -> None:
        self.pid = pid
        self.output = output
        self._others = others
        """The children of this process that are none of its business."""
        self._scratch = scratch
        self._poll = select.poll()
        self._poll.register(output.reading, select.POLLIN)
        self._awaited: dict[int, Callable[[], None]] = {}
        self._end = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None  # which wakes the poll; Linux has it
        if self._end is not None:
            self._poll.register(self._end, select.POLLIN)

    @classmethod
    def fork(cls, journal: Journal, run: str, work: Callable[[], None]) -> Horse:
        """Start the process, which does `work` and ends; it leads a process group of its own."""
        if _libc is not None:
            _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        others = children(os.getpid())
        output = Output(journal, run)
        scratch = TemporaryDirectory(prefix="modelmill-job-", ignore_cleanup_errors=True)
        pid = os.fork()
        if pid == 0:
            _run(output, scratch.name, work)
        with suppress(OSError):  # the process does it too, whoever comes first; or has ended already
            os.setpgid(pid, pid)
        output.hand_over()
        return cls(pid, output, others, scratch)

    def wait(self, seconds: float) -> bool:
        """Whether the process ended within this time; its lines are shipped meanwhile."""
        deadline, taken = time.monotonic() + seconds, True
        while not self._has_ended():
            left = max(0.0, deadline - time.monotonic())
            more = taken and self.output.waits
            ready = dict(self._poll.poll(1000 * (left if self._end and not more else LOG_WRITE_SECONDS)))
            if self.output.reading in ready:
                if not self.output.read():
                    self._poll.unregister(self.output.reading)
                time.sleep(min(LOG_WRITE_SECONDS, left))  # so that many lines go in one transaction
            for number in ready.keys() & self._awaited.keys():
                self._poll.unregister(number)
                do = self._awaited.pop(number)
                if not ready[number] & select.POLLHUP:
                    do()
            if taken and self.output.waits:
                taken = self.output.ship_some()
            if not left:
                return self._has_ended()
        return True

    def once_readable(self, number: int, do: Callable[[], None]) -> None:
        """While the process is waited for: `do`, once, when file `number` can be read; that it closes is not enough."""
        self._poll.register(number, select.POLLIN)
        self._awaited[number] = do

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """End the process and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for child in self._children():
            for pid in (child, *descendants(child)):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _children(self) -> frozenset[int]:
        """The process, and those that it started and that have lost their parents."""
        return children(os.getpid()) - self._others

    def end(self) -> tuple[int, Usage]:
        """Its wait status, 0 where it ended well, and what it took. Nothing that it started outlives it."""
        self.kill()
        _, status, taken = os.wait4(self.pid, 0)
        self._end_those_left()
        if self._end is not None:
            os.close(self._end)
        self.output.close()
        self._scratch.cleanup()
        return status, of_ended(taken)

    def _end_those_left(self) -> None:
        deadline = time.monotonic() + LINGERING
        while left := self._children():
            self.kill()
            for pid in left:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                log.error("processes %s, which a training started, do not end", ", ".join(map(str, sorted(left))))
                return
            time.sleep(0.01)


def _run(output: Output, scratch: str, work: Callable[[], None]) -> NoReturn:
    status = os.EX_TEMPFAIL
    try:
        os.setpgrp()
        output.redirect()
        # Temporary files go where the worker removes them, however this process ends.
        os.environ["TMPDIR"] = tempfile.tempdir = scratch
        work()
        status = 0
    finally:
        os._exit(status)


def from_outside(status: int) -> bool:
    """Whether what ended a process came from outside, and may not come again; or it could not record how it ended."""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) in FROM_OUTSIDE
    return os.waitstatus_to_exitcode(status) == os.EX_TEMPFAIL


def how(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        memory = "; the system may have been out of memory" if number == signal.SIGKILL else ""
        return f"signal {number} ({name}){memory}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def with_usage(run: Run, usage: Usage) -> Run:
    """`run` with what its process took in the end; its own figures, which count its children too, where greater."""
    return replace(
        run,
        peak_memory_mb=max(run.peak_memory_mb, usage.peak_memory_mb),
        cpu_seconds=max(run.cpu_seconds, usage.cpu_seconds),
    )


# --- in the process itself


def die_with(worker: int) -> None:
    """Let the system kill this process when its worker dies (on Linux)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:  # it died before the line above
        os._exit(1)


def die_without(redis: Redis, lease: str) -> None:
    """Kill this process soon after its lease is gone: another worker may have begun again by then.

    That Redis is away says nothing of the lease.
    """

    def look() -> None:
        while True:
            time.sleep(LEASE_CHECK_SECONDS)
            with suppress(*AWAY):
                if not redis.exists(lease):
                    time.sleep(LEASE_CHECK_SECONDS)  # it is gone at a proper end, too, shortly before that
                    os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="lease", daemon=True).start()


# --- what a training's process writes to standard output and error: read by its worker, so that nothing is lost when
# the process is killed, and nothing waits while it computes.

LONGEST_LINE = 2000
"""Characters kept of a line."""
WAITING = 10_000
"""Lines that may wait for a Redis that is away; older ones are dropped."""
LINES_PER_WRITE = 500
"""Lines written to Redis at a time."""
PIECE = 65536
PIECES = 4
"""Read at a time."""


class Output:
    """A pipe from the process that trains; `journal` gets each line under the id of `run`, the worker's own standard
    error too."""

    def __init__(self, journal: Journal, run: str) -> None:
        self.journal = journal
        self.run = run
        self.reading, self._writing = os.pipe()
        os.set_blocking(self.reading, False)
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=WAITING)
        self._read = 0
        """Lines read so far, dropped ones included."""

    def redirect(self) -> None:
        """In the process that trains: write everything into the pipe from now on."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self._writing, 1)
        os.dup2(self._writing, 2)
        os.close(self._writing)
        os.close(self.reading)
        sys.stdout, sys.stderr = (
            open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115  until it ends
            for number in (1, 2)
        )

    def hand_over(self) -> None:
        """In the worker: the other end belongs to the process alone from now on."""
        os.close(self._writing)

    def read(self) -> bool:
        """Take in what was written; False where that was all, since nobody can write any more.

        However much is written, it returns soon: the lease is to be renewed, and the time limit kept.
        """
        for _ in range(PIECES):
            try:
                piece = os.read(self.reading, PIECE)
            except BlockingIOError:
                return True
            if not piece:
                return False
            self._split(piece)
        return True

    @property
    def waits(self) -> bool:
        """Whether lines wait to be shipped."""
        return bool(self._lines)

    def ship_some(self, *, fenced: bool = True) -> bool:
        """Write the first lines that wait to the journal; False where they must go on waiting, because Redis is away,
        or the lease is."""
        batch = [self._lines[number] for number in range(min(LINES_PER_WRITE, len(self._lines)))]
        first = self._read - len(self._lines) + 1
        try:
            if not self.journal.add(log_entries(self.run, first, batch), fenced=fenced):
                return False
        except AWAY as error:
            log.warning("%d lines of the log wait for Redis: %s", len(self._lines), error)
            return False
        for _ in batch:
            self._lines.popleft()
        return True

    def ship(self, *, fenced: bool = True) -> None:
        """Write all the lines that wait, as far as they need not go on waiting."""
        while self.waits and self.ship_some(fenced=fenced):
            pass

    def close(self) -> None:
        """Take in the rest and let go of the pipe, whoever may still write to it; nothing of it is shipped yet."""
        self.read()
        if self._rest:
            self._split(b"\n")
        os.close(self.reading)

    def _split(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > 4 * LONGEST_LINE:  # a line without an end must not fill the memory
            whole.append(self._rest)
            self._rest = b""
        for raw in whole:
            text = raw.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")  # a progress bar's last state
            self._lines.append(text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}...")
            self._read += 1
            print(text, file=sys.stderr)


# --- what a training's process takes: memory and processor time, with those of the processes that it started

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
