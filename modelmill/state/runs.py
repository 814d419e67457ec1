"""Runs in Redis: one training attempt each, with all that is recorded of it, whatever became of it.

They are plain text: `redis-cli HGETALL run:...`; dictionaries become fields with dotted names, such as
`metrics.accuracy`. Every change is one transaction, with the lease that entitles to it and the event that tells of it.

All runs are in one sorted set by their last change, so that whoever keeps a copy reads only what changed since.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from redis.client import Pipeline

from modelmill.errors import RunEnded, UnknownName
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import RunFailed, RunStarted
from modelmill.state.records import from_hash, to_hash
from modelmill.times import utc_now

RunStatus = Literal["running", "succeeded", "failed", "cancelled", "lost"]
"""`lost`: its process or its worker was killed, or did not renew the lease in time."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training attempt with all that is known about it. Times are ISO 8601 in UTC, durations seconds."""

    id: str
    model: str
    status: RunStatus = "running"
    stage: str = "queued"
    """What the run was doing last: frame, fit, evaluate, package, register, done."""
    started: str
    finished: str = ""
    trigger: str = "manual"
    """What asked for it: `manual`, `backfill`, `registered`, `manual log`, or a kind of trigger: `every`, `cron`,
    `after`, `on`."""
    by: str = ""
    """Who or what asked for it."""
    start: str = ""
    """The time from which on the event times of its rows had to lie; empty where all rows were taken."""
    as_of: str = ""
    """The time before which the event times of its rows had to lie; empty where all rows were taken."""
    job: str = ""
    """The RQ job that carried it out."""
    attempt: int = 1
    """The how-many-th attempt of its job it is."""
    retry_reason: str = ""
    """Why the attempt before it failed; empty for the first."""
    canceled_by: str = ""
    lease: str = ""
    """The key that its worker keeps from expiring; without it nothing more is recorded of the run."""
    version: int | None = None
    """The version that it registered."""
    parent: str = ""
    """The run of the search that it is a trial of."""
    trial: int | None = None
    """Its number among the trials of that search, from 1."""
    trials: int = 0
    """How many trials its own search has."""
    trials_ended: int = 0
    """Of them those that have succeeded or failed."""
    trials_failed: int = 0
    decision: str = ""
    """Whether the version was promoted, and why or why not."""
    gates: dict[str, str] = field(default_factory=dict)
    """Gate to whether it held, with its figures: `passed: ...` or `failed: ...`."""
    tags: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """Time to who said what."""
    estimator: str = ""
    """The estimator as scikit-learn prints it."""
    features: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    """What its features are called in the feature store: `users.feature_3@4f2e1a9c`."""
    rows_train: int = 0
    rows_test: int = 0
    rows_dropped: int = 0
    """Rows left out for a missing label or a missing value of a feature that is not nullable."""
    data_fingerprint: str = ""
    """SHA-256 of the training frame's values, in hexadecimal."""
    data_start: str = ""
    data_end: str = ""
    """Event times of the oldest and the newest row."""
    history: dict[str, str] = field(default_factory=dict)
    """Source to the position of its history that the frame was made at: the ingest time of the newest row, and after
    `without` those of ingests before it that had not ended."""
    source_rows: dict[str, int] = field(default_factory=dict)
    """Source to the rows that its history held at this position."""
    definitions: str = ""
    """SHA-256 of the definitions file."""
    modules: dict[str, str] = field(default_factory=dict)
    """File that the definitions import, beside what is installed, to its SHA-256."""
    git_commit: str = ""
    machine: str = ""
    """Processor, its cores and the threads that numeric libraries use."""
    package: str = ""
    """Folder of the model package in the storage."""
    runtime: str = ""
    """What serves it: `onnx float32`, `onnx float64`, or `skops`, which is scikit-learn."""
    runtime_reason: str = ""
    """Why that is not ONNX."""
    parity: dict[str, float] = field(default_factory=dict)
    """How far the package's answers are from the estimator's on the held-out rows: `rows`, `labels_differing`,
    `max_difference`, `max_relative_difference`."""
    error: str = ""
    traceback: str = ""
    origin: dict[str, str] = field(default_factory=dict)
    """Of a model that was trained elsewhere: its file, its SHA-256, and where it comes from."""
    seed: int = 0
    params: dict[str, str] = field(default_factory=dict)
    split: str = ""
    """Which rows were held out, in words."""
    metric: str = ""
    """The one of its metrics that decides."""
    metrics: dict[str, float] = field(default_factory=dict)
    """On the held-out rows; greater is better."""
    intervals: dict[str, str] = field(default_factory=dict)
    """Metric to the ends of its 95 % interval: `0.81 0.86`."""
    segments: dict[str, str] = field(default_factory=dict)
    """Column to where the deciding metric is lowest and highest."""
    packages: dict[str, str] = field(default_factory=dict)
    """Python package to its version."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage to the time it took."""
    peak_memory_mb: float = 0.0
    """The most memory that its process held, in MB; that of processes which it started is added to it."""
    cpu_seconds: float = 0.0
    """Processor time of its process and of those that it started, user and system."""


def folder(model: str, run: str) -> str:
    """The folder of a run's files in the storage: what is too large, or too seldom looked at, for Redis."""
    return f"runs/{model}/{run}"


def code_file(model: str, run: str) -> str:
    """The definitions file as it was when a run began, in the storage."""
    return f"{folder(model, run)}/mill.py"


def modules_folder(model: str, run: str) -> str:
    """Copies of the modules that the definitions import, in the storage."""
    return f"{folder(model, run)}/modules"


def new_run_id() -> str:
    """A run id that sorts by time: `20261123T234708-3fa2c1`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


MARK_CHANGED = """
-- KEYS: the sorted set. ARGV: ids of runs.
-- The time, so that a change is later than all before it even where Redis has lost its last second.
local now = redis.call('TIME')
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local score = math.max(now[1] * 1000000 + now[2], (tonumber(newest[2]) or 0) + 1)
for i, run in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', score), run)
end
"""
RUNS_PER_READ = 500
"""Runs that are read in one round trip."""


def write(pipe: Pipeline, run: Run) -> None:
    """Write a run, on a pipeline that is in MULTI."""
    write_fields(pipe, run.id, to_hash(run))


def write_fields(pipe: Pipeline, run_id: str, fields: Mapping[str, str], gone: Collection[str] = ()) -> None:
    """Write fields of a run, and take others away, and mark it as changed, on a pipeline that is in MULTI.

    Nothing else writes to runs.
    """
    if fields:
        pipe.hset(keys.run(run_id), mapping=fields)
    if gone:
        pipe.hdel(keys.run(run_id), *gone)
    pipe.eval(MARK_CHANGED, 1, keys.RUN_CHANGES, run_id)


class Runs:
    """Reads and changes the runs in `redis` (a client that decodes to text)."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def start(self, run: Run) -> None:
        """Record a run that begins now.

        Raises:
            RunEnded: where its lease has expired before.
        """

        def begin(pipe: Pipeline) -> None:
            require_lease(pipe, run)
            pipe.multi()
            pipe.sadd(keys.MODELS, run.model)
            pipe.sadd(keys.RUNNING, run.id)
            write(pipe, run)
            pipe.zadd(keys.runs(run.model), {run.id: datetime.fromisoformat(run.started).timestamp()})
            bus.append(pipe, RunStarted(source="trainer", model=run.model, run=run.id, trigger=run.trigger))

        self.redis.transaction(begin, *lease_of(run))

    def update(self, run: Run) -> None:
        """Record what is known so far about a run that goes on.

        Raises:
            RunEnded: where the run has been closed meanwhile, or its lease has expired.
        """

        def change(pipe: Pipeline) -> None:
            require_running(pipe, run)
            require_lease(pipe, run)
            pipe.multi()
            write(pipe, run)

        self.redis.transaction(change, keys.run(run.id), *lease_of(run))

    def fail(self, run: Run, error: str, traceback: str) -> Run:
        """Record that a run failed, with its error in one sentence and the traceback.

        Raises:
            RunEnded: where the run has been closed meanwhile.
        """
        return self._close(run, replace(run, status="failed", error=error, traceback=traceback))

    def lose(self, run: Run, reason: str) -> Run:
        """Record that the process of a run was lost, and why. Raises `RunEnded` as `fail` does."""
        return self._close(run, replace(run, status="lost", error=reason))

    def cancel(self, run: Run, by: str) -> Run:
        """Record that somebody stopped a run. Raises `RunEnded` as `fail` does."""
        said = f"cancelled{f' by {by}' if by else ''}"
        return self._close(run, replace(run, status="cancelled", error=said, canceled_by=by))

    def _close(self, run: Run, closed: Run) -> Run:
        """Write what differs between the two: others may know less of the run than its own process has recorded."""
        ended = replace(closed, finished=utc_now())
        before = to_hash(run)
        changes = {name: text for name, text in to_hash(ended).items() if text != before.get(name)}

        def close(pipe: Pipeline) -> None:
            require_running(pipe, run)
            pipe.multi()
            write_fields(pipe, run.id, changes)
            pipe.srem(keys.RUNNING, run.id)
            if not run.parent:  # a search goes on after a trial that failed
                event = RunFailed(source="trainer", model=run.model, run=run.id, error=ended.error, status=ended.status)
                bus.append(pipe, event)

        self.redis.transaction(close, keys.run(run.id))
        return ended

    def record_usage(self, run: Run) -> None:
        """Record peak memory and processor time of a run, which may have ended since: its own process asks.

        Raises:
            RunEnded: where its lease has expired.
        """

        def change(pipe: Pipeline) -> None:
            require_lease(pipe, run)
            pipe.multi()
            known = {"peak_memory_mb": str(run.peak_memory_mb), "cpu_seconds": str(run.cpu_seconds)}
            write_fields(pipe, run.id, known)

        self.redis.transaction(change, *lease_of(run))

    def trials(self, run_id: str) -> list[Run]:
        """The trials of a run's search, in the order of their numbers; attempts that were lost come first.

        Raises:
            UnknownName: for a run that does not exist.
        """
        self.get(run_id)
        return self.read(self.redis.zrange(keys.trials(run_id), 0, -1))

    def running(self) -> list[Run]:
        """The runs that have begun and not ended."""
        with self.redis.pipeline(transaction=False) as pipe:
            for run_id in self.redis.smembers(keys.RUNNING):
                pipe.hgetall(keys.run(run_id))
            return [from_hash(Run, found) for found in pipe.execute() if found]

    def get(self, run_id: str) -> Run:
        """The run of this id, or `UnknownName`."""
        found = self.redis.hgetall(keys.run(run_id))
        if not found:
            raise UnknownName("run", run_id, [run.id for run in self.newest(limit=200)])
        return from_hash(Run, found)

    def newest(self, model: str | None = None, limit: int = 50) -> list[Run]:
        """The newest runs, of one model or of all, newest first."""
        models = [model] if model else sorted(self.redis.smembers(keys.MODELS))
        with self.redis.pipeline(transaction=False) as pipe:
            for name in models:
                pipe.zrevrange(keys.runs(name), 0, limit - 1)
            ids = [run_id for found in pipe.execute() for run_id in found]
            for run_id in ids:
                pipe.hgetall(keys.run(run_id))
            runs = [from_hash(Run, found) for found in pipe.execute() if found]
        return sorted(runs, key=lambda run: run.started, reverse=True)[:limit]

    def read(self, ids: Sequence[str]) -> list[Run]:
        """The runs of these ids, in their order, without those that do not exist."""
        return [from_hash(Run, found) for found in self.hashes(ids) if found]

    def hashes(self, ids: Sequence[str]) -> Iterable[dict[str, str]]:
        """The runs of these ids as they lie in Redis, an empty one for each that does not exist."""
        for start in range(0, len(ids), RUNS_PER_READ):
            with self.redis.pipeline(transaction=False) as pipe:
                for run_id in ids[start : start + RUNS_PER_READ]:
                    pipe.hgetall(keys.run(run_id))
                yield from pipe.execute()

    def changes(self, after: float) -> tuple[list[tuple[str, float]], int]:
        """The ids of the runs that changed after a position, each with its own, in their order; and how many runs
        there are in all. The position before all is 0."""
        with self.redis.pipeline() as pipe:
            pipe.zrange(keys.RUN_CHANGES, f"({after:.0f}", "+inf", byscore=True, withscores=True)
            pipe.zcard(keys.RUN_CHANGES)
            changed, count = pipe.execute()
        return [(run_id, score) for run_id, score in changed], count

    def ids(self) -> set[str]:
        """The ids of all runs."""
        return set(self.redis.zrange(keys.RUN_CHANGES, 0, -1))

    def mark_all(self) -> None:
        """Mark those runs as changed that were never marked, because they were recorded before runs were."""
        known = self.ids()
        for model in self.redis.smembers(keys.MODELS):
            if unmarked := set(self.redis.zrange(keys.runs(model), 0, -1)) - known:
                self.redis.eval(MARK_CHANGED, 1, keys.RUN_CHANGES, *sorted(unmarked))


def require_running(pipe: Pipeline, run: Run) -> None:
    """Raise `RunEnded` for a run that has ended; `pipe` watches the run's key."""
    status, error = pipe.hmget(keys.run(run.id), "status", "error")
    if status != "running":
        raise RunEnded(run.id, status, error)


def require_lease(pipe: Pipeline, run: Run) -> None:
    """Raise `RunEnded` where the run's lease has expired; `pipe` watches its key."""
    if run.lease and not pipe.exists(run.lease):
        raise RunEnded(run.id, "lost", "its worker did not renew its lease in time")


def lease_of(run: Run) -> tuple[str, ...]:
    """The lease's key, to be watched, if the run has a lease."""
    return (run.lease,) if run.lease else ()
