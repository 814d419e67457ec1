"""The windows of all models and the monitor's position in the stream, in Redis, always changed together.

Because windows and position are written in one MULTI under WATCH of the position, each event counts exactly once,
whenever a monitor is killed, and however many of them run: of two that counted the same entries, the second finds
the position moved and its write refused. Nothing is kept in memory from one batch to the next.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from threading import Thread
from typing import Any

from redis import ResponseError, WatchError

from modelmill.errors import Unavailable
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY, Redis
from services.monitor.windows import LOST, OUTCOMES, Slot, Window, fold, minute_text

STREAM = keys.EVENTS_PREDICTIONS
ENTRIES_PER_TRANSACTION = 500
"""Entries that are counted in one transaction."""


def utc_clock() -> datetime:
    """The time now, with its time zone."""
    return datetime.now(UTC)


class Aggregates:
    """Reads and advances the monitor's state in `redis` (a client that decodes to text)."""

    def __init__(self, redis: Redis, retention: timedelta, clock: Callable[[], datetime] = utc_clock) -> None:
        self.redis = redis
        self.retention = retention
        self.clock = clock

    def advance(self, wait: float) -> tuple[int, str]:
        """Count the next entries, waiting up to `wait` seconds for the first.

        Returns:
            How many entries there were, and why the first of those that could not be counted was rejected.

        Raises:
            WatchError: where another monitor has counted them meanwhile; nothing was written.
        """
        before = self.progress()
        after = before.after_trimming(self._stream())
        entries = bus.read_raw(self.redis, STREAM, before.position, wait=wait, count=ENTRIES_PER_TRANSACTION)
        folded = fold((fields for _, fields in entries), now=self.clock(), retention=self.retention)
        if entries:
            after = after.after(entries[-1][0], folded.outcomes)
        if after != before:
            self._commit(before, after, folded.windows)
        return len(entries), folded.rejection

    def progress(self) -> Progress:
        """How far the stream is counted."""
        return Progress.from_hash(self.redis.hgetall(keys.monitor_progress(STREAM)))

    def lag(self) -> Lag:
        """How much of the stream is still to be counted."""
        progress = self.progress()
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.xrange(STREAM, min=f"({progress.position}", count=1)
            pipe.time()
            waiting, (seconds, microseconds) = pipe.execute()
        if not waiting:
            return Lag(0.0, 0)
        appended = int(waiting[0][0].split("-")[0]) / 1000
        entries = max(1, self._stream().get("entries-added", 0) - progress.entries)
        return Lag(max(0.0, seconds + microseconds / 1e6 - appended), entries)

    def windows(self, model: str, start: datetime) -> dict[Slot, Window]:
        """The stored windows of a model for the minutes from `start` on, oldest first."""
        members = self.redis.zrange(keys.monitor_minutes(model), int(start.timestamp()), "+inf", byscore=True)
        slots = [_slot(model, member) for member in members]
        found = self._load(slots)
        return {slot: window for slot, window in found.items() if window != Window()}

    def _stream(self) -> Mapping[str, Any]:
        """What XINFO STREAM says, with our own count as `entries-added` for a Redis before 7; empty for no stream."""
        with self.redis.pipeline() as pipe:  # in one transaction, so that the count is that of the same moment
            pipe.xinfo_stream(STREAM)
            pipe.get(keys.entries_added(STREAM))
            stream, added = pipe.execute(raise_on_error=False)
        if isinstance(stream, ResponseError) and "no such key" in str(stream):
            return {}
        for answer in (stream, added):
            if isinstance(answer, Exception):
                raise answer
        return {"entries-added": int(added or 0), **stream}

    def _commit(self, before: Progress, after: Progress, windows: dict[Slot, Window]) -> None:
        """Write the new progress, and `windows` added to the stored ones."""
        position = keys.monitor_progress(STREAM)
        with self.redis.pipeline() as pipe:
            pipe.watch(position)
            if self.progress() != before:
                raise WatchError("another monitor has moved the position")
            for slot, stored in self._load(list(windows)).items():
                windows[slot].merge(stored)
            pipe.multi()
            pipe.hset(position, mapping=after.to_hash())
            now = self.clock()
            for slot, window in windows.items():
                key, index = _key(slot), keys.monitor_minutes(slot.model)
                pipe.hset(key, mapping=window.to_hash())
                # A length of time, not a moment: the monitor's clock alone says what is old, not Redis's as well.
                pipe.expire(key, slot.minute + self.retention - now)
                pipe.zadd(index, {_member(slot): int(slot.minute.timestamp())})
            for model in {slot.model for slot in windows}:
                index = keys.monitor_minutes(model)
                pipe.zremrangebyscore(index, "-inf", int((now - self.retention).timestamp()))
                pipe.expire(index, self.retention)
            pipe.execute()

    def _load(self, slots: list[Slot]) -> dict[Slot, Window]:
        with self.redis.pipeline(transaction=False) as pipe:
            for slot in slots:
                pipe.hgetall(_key(slot))
            return dict(zip(slots, map(Window.from_hash, pipe.execute()), strict=True))


def _key(slot: Slot) -> str:
    return keys.monitor_window(slot.model, slot.version, minute_text(slot.minute))


def _member(slot: Slot) -> str:
    return f"{slot.version}:{minute_text(slot.minute)}"


def _slot(model: str, member: str) -> Slot:
    version, _, minute = member.partition(":")
    return Slot(model, int(version), datetime.fromisoformat(minute))


# --- how far the monitor has counted a stream, and how it notices that entries were trimmed before it came to them.

START = "0-0"
"""The position before every entry."""


@dataclass(frozen=True)
class Progress:
    """All entries up to `position` have their outcome, and the windows hold those that were counted."""

    position: str = START
    entries: int = 0
    """How many entries the stream has had up to `position`, the lost ones included."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Each of `windows.OUTCOMES` to its count since the monitor first ran."""

    def after(self, position: str, outcomes: Counter[str]) -> Progress:
        """The progress once the entries up to `position` have had these outcomes."""
        entries = self.entries + outcomes.total()
        return Progress(position, entries, Counter(self.outcomes) + outcomes)

    def after_trimming(self, stream: Mapping[str, Any]) -> Progress:
        """The progress with what was lost to trimming, from what XINFO STREAM says (nothing for no stream).

        Trimming takes the oldest entries and waits for no reader. Where the number of entries still to come is
        plain, because the position is the last entry or older than the first, it and the number ever added tell
        how many there were up to the position.
        """
        if not stream:
            return self
        first = stream["first-entry"][0] if stream["first-entry"] else None
        if first is not None and _order(first) > _order(self.position):
            to_come = stream["length"]
        elif first is None or self.position == stream["last-generated-id"]:
            to_come = 0
        else:
            return self
        passed = stream["entries-added"] - to_come
        lost = Counter({LOST: max(0, passed - self.entries)})
        return replace(self, entries=passed, outcomes=Counter(self.outcomes) + lost)

    def to_hash(self) -> dict[str, str]:
        """The progress as the fields of a hash of plain text."""
        counts = {outcome: str(self.outcomes.get(outcome, 0)) for outcome in OUTCOMES}
        return {"position": self.position, "entries": str(self.entries), **counts}

    @classmethod
    def from_hash(cls, found: Mapping[str, str]) -> Progress:
        """The progress that `to_hash` wrote; the beginning for an empty hash."""
        if not found:
            return cls()
        return cls(found["position"], int(found["entries"]), {o: int(found[o]) for o in OUTCOMES if int(found[o])})


@dataclass(frozen=True)
class Lag:
    """How much is still to be counted."""

    seconds: float
    """Age of the oldest entry that is not counted yet; 0 where there is none."""
    entries: int
    """How many there are."""


def _order(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))


# --- the thread that keeps the monitor's windows up to date.

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1
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
            if entries < ENTRIES_PER_TRANSACTION:
                self.stop.wait(PAUSE_SECONDS)

    def check(self) -> None:
        """Raise `Unavailable` where the windows are not up to date, or will not stay so."""
        if not self.thread.is_alive():
            raise Unavailable("the thread that counts events does not run; start the monitor again")
        lag = self.aggregates.lag()
        if lag.seconds > READY_SECONDS:
            raise Unavailable(f"the windows are {lag.seconds:.0f} s behind; expected at most {READY_SECONDS:.0f}")
