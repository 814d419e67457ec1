"""Models that are trained as of past days: for each of some points in time on the rows from before it.

The request and what became of each of its points lie in Redis, so that any trainer process goes on with it, also after
a restart. One training waits or runs at a time, and none while the model is being trained otherwise: the queue is never
filled, and a later point's version is registered later.
"""

from __future__ import annotations

import logging
from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from redis.client import Pipeline
from redis.exceptions import WatchError

from modelmill import times
from modelmill.declare.definitions import Definitions
from modelmill.errors import Conflict, InvalidRequest, NotFound, QueueFull, UnknownName
from modelmill.state import keys
from modelmill.state.events import utc_now
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from services.trainer.jobs.queue import TrainingQueue

log = logging.getLogger(__name__)

TRIGGER = "backfill"
"""What its runs say that they were triggered by."""
RUNNING, DONE, CANCELLED = "running", "done", "cancelled"
SUCCEEDED = "succeeded"
UNFINISHED = ("created", "queued", "started", "deferred", "scheduled")
"""States of a job that has not ended."""


class NoBackfill(NotFound):
    """Nobody has asked for a model to be trained as of past days."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} was never trained as of past days; ask for it with `modelmill backfill`")


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """The last request to train a model as of past days."""

    model: str
    start: str
    end: str
    step: str
    by: str = ""
    status: str = RUNNING
    """running, done or cancelled."""
    asked: str = field(default_factory=utc_now)
    ended: str = ""
    points: dict[str, Point] = field(default_factory=dict)
    """By their times, oldest first."""

    @classmethod
    def read(cls, model: str, found: dict[str, str]) -> Backfill:
        """The request that `to_hash` wrote."""
        points = {
            name: Point.read(name, found[f"point.{name}"])
            for name in sorted(key.removeprefix("point.") for key in found if key.startswith("point."))
        }
        return cls(model=model, points=points, **{key: found[key] for key in found if not key.startswith("point.")})

    def to_hash(self) -> dict[str, str]:
        """The request as the fields of a hash."""
        own = {name: getattr(self, name) for name in ("start", "end", "step", "by", "status", "asked", "ended")}
        return own | {f"point.{name}": str(point) for name, point in self.points.items()}

    def view(self) -> dict[str, Any]:
        """The request as people see it."""
        counts = Counter(point.status for point in self.points.values())
        return {
            "model": self.model,
            "from": self.start,
            "to": self.end,
            "step": self.step,
            "by": self.by,
            "status": self.status,
            "asked": self.asked,
            "ended": self.ended or None,
            "total": len(self.points),
            "counts": dict(counts),
            "points": [vars(point) for point in self.points.values()],
        }

    def first(self, status: str) -> Point | None:
        """The oldest point of this status."""
        return next((point for point in self.points.values() if point.status == status), None)

    def having(self, point: Point) -> Backfill:
        """The request with another state of a point."""
        return replace(self, points=self.points | {point.as_of: point})

    def settled(self) -> Backfill:
        """The request, done where nothing is left to do."""
        left = self.first("waiting") or self.first("active")
        return self if left else replace(self, status=DONE, ended=utc_now())


class Backfills:
    """Keeps them, and carries them on; `queue` and `registry` are those of the trainer."""

    def __init__(self, queue: TrainingQueue, registry: Registry) -> None:
        self.queue = queue
        self.registry = registry

    def get(self, model: str) -> Backfill:
        """The last request of `model`, or `NoBackfill`."""
        found = self.registry.redis.hgetall(keys.backfill(model))
        if not found:
            raise NoBackfill(model)
        return Backfill.read(model, found)

    def ask(self, wanted: Backfill, *, again: bool = False) -> Backfill:
        """Train a model as of all points of `wanted` that no training has succeeded for yet; with `again`, of all.

        Raises:
            Conflict: while it is being trained as of other points.
        """

        def change(before: Backfill | None) -> Backfill:
            if before is None:
                return wanted
            if before.status == RUNNING:
                if before.points.keys() == wanted.points.keys():
                    return before
                raise Conflict(
                    f"model {wanted.model!r} is being trained as of {len(before.points)} points from {before.start} to"
                    f" {before.end} already; wait for its end or cancel it",
                    model=wanted.model,
                )
            kept = [] if again else [self._now(before.model, point) for point in before.points.values()]
            done = {p.as_of: p for p in kept if p.status == SUCCEEDED and p.as_of in wanted.points}
            return replace(wanted, points=wanted.points | done).settled()

        return self._change(wanted.model, change)

    def cancel(self, model: str, *, by: str = "") -> Backfill:
        """Let no further point be trained, and cancel the training that waits or runs.

        Raises:
            Conflict: where it has ended.
        """

        def change(before: Backfill | None) -> Backfill:
            if before is None:
                raise NoBackfill(model)
            if before.status != RUNNING:
                raise Conflict(f"the training of {model!r} as of past days has ended already: {before.status}")
            return replace(before, status=CANCELLED, ended=utc_now())

        cancelled = self._change(model, change)
        if point := cancelled.first("active"):
            with suppress(Conflict, UnknownName):  # it has just ended
                self.queue.cancel(point.job, self.registry, by=by)
            cancelled = self._change(model, lambda now: (now or cancelled).having(self._now(model, point)))
        return cancelled

    def advance(self, definitions: Definitions) -> None:
        """Carry on what is running: note what has ended, and enqueue the next training where nothing is in its way."""
        for model in sorted(self.registry.redis.smembers(keys.BACKFILLS)):
            found = self.registry.redis.hgetall(keys.backfill(model))
            if not found or found["status"] != RUNNING:
                self.registry.redis.srem(keys.BACKFILLS, model)
                continue
            with suppress(WatchError, QueueFull):  # another process was quicker; later
                self._advance(Backfill.read(model, found), found, definitions)

    def _advance(self, before: Backfill, found: dict[str, str], definitions: Definitions) -> None:
        now = before
        if point := now.first("active"):
            now = now.having(self._now(before.model, point)).settled()
        following = now.first("waiting") if now.first("active") is None else None
        if following and before.model not in definitions.models:
            lacking = f"model {before.model!r} is not declared any more"
            now = now.having(replace(following, status="failed", error=lacking)).settled()
            following = None
        if following and self.queue.is_pending(before.model):
            following = None
        if now == before and following is None:
            return
        key = keys.backfill(before.model)
        with self.queue.redis.pipeline() as pipe:
            pipe.watch(key)
            if {name.decode(): text.decode() for name, text in pipe.hgetall(key).items()} != found:
                raise WatchError
            pipe.multi()
            if following:
                job = self.queue.enqueue(
                    before.model, trigger=TRIGGER, by=before.by, end=following.as_of, pipeline=pipe
                )
                now = now.having(replace(following, status="active", job=job))
            self._write(pipe, now)
            pipe.execute()
        if following:
            log.info("training %s as of %s", before.model, following.as_of)

    def _now(self, model: str, point: Point) -> Point:
        """A point with what has become of the training that was enqueued for it."""
        if point.status != "active":
            return point
        try:
            job = self.queue.job(point.job)
        except UnknownName:  # it has ended long ago; its run is kept
            run = next((run for run in self.registry.runs.newest(model, 1000) if run.job == point.job), None)
            return _after_run(point, run, "its job is not known any more")
        if job.status in UNFINISHED:
            return point
        if job.status == "finished" and job.run:
            return _after_run(point, self.registry.runs.get(job.run), "")
        status = CANCELLED if job.status in ("canceled", "stopped", CANCELLED) else "failed"
        return replace(point, status=status, run=job.run or "", error=job.error)

    def _change(self, model: str, change: Callable[[Backfill | None], Backfill]) -> Backfill:
        key = keys.backfill(model)

        def write(pipe: Pipeline) -> Backfill:
            found = pipe.hgetall(key)
            after = change(Backfill.read(model, found) if found else None)
            pipe.multi()
            self._write(pipe, after)
            return after

        changed: Backfill = self.registry.redis.transaction(write, key, value_from_callable=True)
        return changed

    def _write(self, pipe: Pipeline, backfill: Backfill) -> None:
        key = keys.backfill(backfill.model)
        pipe.delete(key)
        pipe.hset(key, mapping=backfill.to_hash())
        if backfill.status == RUNNING:
            pipe.sadd(keys.BACKFILLS, backfill.model)
        else:
            pipe.srem(keys.BACKFILLS, backfill.model)


def _after_run(point: Point, run: Run | None, error: str) -> Point:
    if run is None:
        return replace(point, status="failed", error=error)
    return replace(point, status=run.status, run=run.id, version=run.version, error=run.error)


# --- the points in time as of which a model is to be trained, and what became of each

MONTH = "month"
STEP = "1d"
MOST_POINTS = 1000


def points(start: datetime, end: datetime, step: str) -> list[datetime]:
    """`start` and every `step` later, up to and including `end`; a month later is the same day of the next month.

    Raises:
        InvalidRequest: for a step that is no length of time, an end before the start, or more than `MOST_POINTS`.
    """
    if end < start:
        raise InvalidRequest(f"field 'from' is {when(start)} and 'to' is {when(end)}; expected the end to be later")
    found: list[datetime] = []
    for point in _from(start, step):
        if point > end:
            return found
        if len(found) == MOST_POINTS:
            raise InvalidRequest(
                f"from {when(start)} to {when(end)} in steps of {step} is more than {MOST_POINTS} trainings; expected"
                " a longer step"
            )
        found.append(point)
    return found


def _from(start: datetime, step: str) -> Iterator[datetime]:
    if step == MONTH:
        for month in range(start.month - 1, 12 * MOST_POINTS):
            year, number = start.year + month // 12, month % 12 + 1
            yield start.replace(year=year, month=number, day=min(start.day, monthrange(year, number)[1]))
    try:
        length = timedelta(seconds=times.seconds(step))
    except ValueError as error:
        raise InvalidRequest(f"field 'step': {error}, or {MONTH!r}", field="step") from None
    point = start
    while True:
        yield point
        point += length


def when(moment: datetime) -> str:
    """A point as text: `2013-02-01T05:00:00Z`, by which points sort."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training as of a past time."""

    as_of: str
    """Its rows' event times lie before this."""
    status: str = "waiting"
    """waiting, active, succeeded, or else as its job ended: failed or cancelled."""
    job: str = ""
    run: str = ""
    version: int | None = None
    error: str = ""

    @classmethod
    def read(cls, as_of: str, text: str) -> Point:
        """The point that `str` wrote."""
        return cls(as_of=as_of, **orjson.loads(text))

    def __str__(self) -> str:
        known = {name: value for name, value in asdict(self).items() if value and name != "as_of"}
        return orjson.dumps(known).decode()
