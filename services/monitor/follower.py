"""The thread that keeps the monitor's windows up to date."""

from __future__ import annotations

import logging
from threading import Event as Flag
from threading import Thread

from redis import WatchError

from modelmill.errors import Unavailable
from modelmill.state.connections import AWAY
from services.monitor.aggregates import BATCH, Aggregates

log = logging.getLogger(__name__)

PACE = 0.1
"""Seconds between two batches that were not full: at most so many transactions, at most so much delay."""
STANDBY = 1.0
"""Seconds that a monitor stands by when another one counts."""
RETRY = 1.0
"""Seconds between two tries when counting fails."""
READY_SECONDS = 30.0
"""How far behind the stream the windows may be while the monitor still counts as ready."""


class Follower:
    """Counts the events of the stream in a thread of its own, until `stop` is set."""

    def __init__(self, aggregates: Aggregates, stop: Flag, *, wait: float) -> None:
        self.aggregates = aggregates
        self.stop = stop
        self.wait = wait
        self.thread = Thread(target=self.run, name="follower", daemon=True)

    def run(self) -> None:
        """Count batch after batch. Whatever goes wrong is logged once, and tried again every second."""
        failing = False
        while not self.stop.is_set():
            try:
                entries, rejection = self.aggregates.advance(self.wait)
            except WatchError:
                self.stop.wait(STANDBY)
                continue
            except Exception as error:  # a thread that died would stay dead; one that tries again recovers
                if not failing:
                    log.warning("cannot count, trying every second: %s", error, exc_info=not isinstance(error, AWAY))
                failing = True
                self.stop.wait(RETRY)
                continue
            if failing:
                log.info("counting again")
                failing = False
            if rejection:
                log.warning("rejected events; the first: %s", rejection)
            if entries < BATCH:
                self.stop.wait(PACE)

    def check(self) -> None:
        """Raise `Unavailable` where the windows are not up to date, or will not stay so."""
        if not self.thread.is_alive():
            raise Unavailable("the thread that counts events does not run; start the monitor again")
        lag = self.aggregates.lag()
        if lag.seconds > READY_SECONDS:
            raise Unavailable(f"the windows are {lag.seconds:.0f} s behind; expected at most {READY_SECONDS:.0f}")
