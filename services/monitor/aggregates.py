"""The windows of all models and the monitor's position in the stream, in Redis, always changed together.

Because windows and position are written in one MULTI under WATCH of the position, each event counts exactly once,
whenever a monitor is killed, and however many of them run: of two that counted the same entries, the second finds
the position moved and its write refused. Nothing is kept in memory from one batch to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import ResponseError, WatchError

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from services.monitor.progress import Lag, Progress
from services.monitor.windows import MINUTE_FORMAT, Slot, Window, fold, minute_text

STREAM = keys.EVENTS_PREDICTIONS
BATCH = 500
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
        entries = bus.read_raw(self.redis, STREAM, before.position, wait=wait, count=BATCH)
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
    return Slot(model, int(version), datetime.strptime(minute, MINUTE_FORMAT).replace(tzinfo=UTC))
