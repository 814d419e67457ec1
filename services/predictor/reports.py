"""Reports of predictions, appended to `events:predictions` off the request's path.

A request leaves its report in a bounded buffer; one thread turns the reports into events and appends them in batches.
What is guaranteed: a report is appended exactly once, or dropped and counted. A batch whose answer was lost is sent
again, and its number, which Redis compares and sets in the same script, keeps it from being appended twice. Dropped
are reports that find the buffer full, and those that Redis does not take at shutdown. A process that is killed loses
what is in its buffer, with a Redis that answers the last `INTERVAL`.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram
from redis import RedisError

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import Event

log = logging.getLogger(__name__)

INTERVAL = 0.05
"""Seconds between flushes."""
RETRY = 1.0
"""Seconds until a failed flush is tried again."""
DRAIN = 2.0
"""Seconds at shutdown in which batches may still be begun."""
BATCH_REPORTS = 25
"""Reports in a batch at most: while one is made and appended, requests wait for Python's lock and for Redis."""
BATCH_ROWS = 1000
"""Rows in a batch from which on it takes no further report."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a request leaves behind: its number of rows, and how to make its event, which is not done on its time."""

    rows: int
    event: Callable[[], Event]


class Reports:
    """The buffer and the thread that empties it. From `bound` waiting rows on, further reports are dropped."""

    def __init__(self, redis: Redis, *, bound: int) -> None:
        self.redis = redis
        self.bound = bound
        self._lock = threading.Lock()
        self._waiting: deque[Report] = deque()
        self._rows = 0
        self._sending: list[Report] = []  # the batch that is not known to have been appended
        self._batch = 0
        self._marker = keys.report_batch(secrets.token_hex(8))
        self._stop = threading.Event()

    def add(self, report: Report) -> None:
        """Leave a report to be appended soon, or drop it where the buffer is full. Never waits for Redis."""
        with self._lock:
            if self._rows < self.bound:
                self._rows += report.rows
                self._waiting.append(report)
                return
        DROPPED.inc(report.rows)

    def start(self) -> threading.Thread:
        """Append in a thread that ends after the main thread, and after what that left behind is appended."""
        thread = threading.Thread(target=self._run, name="reports", daemon=False)
        thread.start()
        return thread

    def stop(self) -> None:
        """Let the thread append what is left, and end."""
        self._stop.set()

    def flush(self, *, until: float = float("inf")) -> None:
        """Append all that waits, as far as it can be begun by `until` (`time.monotonic()`).

        Raises what Redis raises; the batch that it was about is sent again by the next call.
        """
        while time.monotonic() < until and (self._sending or self._waiting):
            if not self._sending:
                self._sending = self._next_batch()
                self._batch += 1
            events = [report.event() for report in self._sending]
            bus.append_once(self.redis, keys.EVENTS_PREDICTIONS, events, marker=self._marker, batch=self._batch)
            self._sending = []

    def _run(self) -> None:
        main = threading.main_thread()
        failing = False
        while main.is_alive() and not self._stop.wait(RETRY if failing else INTERVAL):
            try:
                self.flush()
                failing = False
            except RedisError as error:
                if not failing:
                    log.warning("cannot report predictions, trying every second: %s", error)
                failing = True
            except Exception:
                log.exception("a batch of predictions cannot be reported")
                self._drop(self._sending)
        self._drain()

    def _drain(self) -> None:
        try:
            self.flush(until=time.monotonic() + DRAIN)
        except Exception as error:
            log.warning("cannot report predictions at shutdown: %s", error)
        self._drop([*self._sending, *self._waiting])

    def _drop(self, reports: list[Report]) -> None:
        if rows := sum(report.rows for report in reports):
            DROPPED.inc(rows)
            log.warning("%d predicted rows are not reported", rows)
        self._sending = []

    def _next_batch(self) -> list[Report]:
        batch: list[Report] = []
        rows = 0
        with self._lock:
            while self._waiting and len(batch) < BATCH_REPORTS and rows < BATCH_ROWS:
                batch.append(self._waiting.popleft())
                rows += batch[-1].rows
            self._rows -= rows
        return batch


# --- the predictor's Prometheus metrics. No label grows with time: versions are values here, not labels.

PREDICTIONS = Counter(
    "modelmill_predictions_total", "Predict requests for a live model, served or failed", ["model", "outcome"]
)
DROPPED = Counter("modelmill_predictions_dropped_total", "Answered rows that could not be reported")
LIVE_VERSION = Gauge(
    "modelmill_live_version",
    "Version that is served, 0 for none; of several worker processes, the one that swapped last",
    ["model"],
    multiprocess_mode="mostrecent",
)
SWAPS = Counter("modelmill_model_swaps_total", "Versions that went live in a worker process", ["model"])
LOAD_FAILURES = Counter("modelmill_model_load_failures_total", "Champions that could not be loaded", ["model"])
LOAD_SECONDS = Histogram(
    "modelmill_model_load_seconds",
    "Time to read, check and warm up a version, in seconds",
    ["model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
