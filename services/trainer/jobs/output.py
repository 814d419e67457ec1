"""What a training's process writes to standard output and error: read by its worker, so that nothing is lost when the
process is killed, and nothing waits while it computes."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque

from modelmill.state.connections import AWAY
from services.trainer.jobs.journal import Journal, log_entries

log = logging.getLogger(__name__)

LONGEST_LINE = 2000
"""Characters kept of a line."""
WAITING = 10_000
"""Lines that may wait for a Redis that is away; older ones are dropped."""
BATCH = 500
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
        batch = [self._lines[number] for number in range(min(BATCH, len(self._lines)))]
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
