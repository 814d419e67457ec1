"""Runs, versions and aliases in Redis. Whatever changes, changes in one transaction with the event that tells of it.

The registry is plain text: `redis-cli HGETALL run:...`, `HGETALL model:user_target:7`, `HGETALL
model:user_target:aliases`. Dictionaries become fields with dotted names, such as `metrics.accuracy`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from redis.client import Pipeline

from modelmill import bus, keys
from modelmill.connections import Redis
from modelmill.errors import Conflict, RunEnded, UnknownName
from modelmill.events import ModelPromoted, ModelTrained, RunFailed, RunStarted, utc_now
from modelmill.records import from_hash, to_hash

CHAMPION = "champion"
"""The alias that predictors serve."""
HISTORY_LENGTH = 10_000
"""Alias moves kept per model."""

RunStatus = Literal["running", "succeeded", "failed"]


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
    by: str = ""
    """Who or what asked for it."""
    job: str = ""
    """The RQ job that carried it out."""
    lease: str = ""
    """The key that its worker keeps from expiring; without it nothing more is recorded of the run."""
    version: int | None = None
    """The version that it registered."""
    decision: str = ""
    """Whether the version was promoted, and why or why not."""
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
    definitions: str = ""
    """SHA-256 of the definitions file."""
    git_commit: str = ""
    package: str = ""
    """Folder of the model package in the storage."""
    error: str = ""
    traceback: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    """Python package to its version."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage to the time it took."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """An immutable, numbered model package."""

    model: str
    version: int
    run: str
    created: str
    package: str
    """Folder of the model package in the storage."""
    fields: list[str] = field(default_factory=list)
    """What it is served from, as source and field of the feature store: `users.feature_3@4f2e1a9c`."""
    definitions: str = ""
    """SHA-256 of the definitions file that it was trained with."""
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One move of an alias. `kind` is `promote` or `rollback`; `previous` is absent at the first."""

    time: str
    alias: str
    version: int
    previous: int | None
    kind: str
    by: str
    reason: str


def new_run_id() -> str:
    """A run id that sorts by time: `20261123T234708-3fa2c1`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class Registry:
    """Reads and changes the registry in `redis` (a client that decodes to text)."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    # --- runs

    def start_run(self, run: Run) -> None:
        """Record a run that begins now.

        Raises:
            RunEnded: where its lease has expired before.
        """

        def begin(pipe: Pipeline) -> None:
            _require_lease(pipe, run)
            pipe.multi()
            pipe.sadd(keys.MODELS, run.model)
            pipe.sadd(keys.RUNNING, run.id)
            pipe.hset(keys.run(run.id), mapping=to_hash(run))
            pipe.zadd(keys.runs(run.model), {run.id: datetime.fromisoformat(run.started).timestamp()})
            bus.append(pipe, RunStarted(source="trainer", model=run.model, run=run.id, trigger=run.trigger))

        self.redis.transaction(begin, *_lease(run))

    def update_run(self, run: Run) -> None:
        """Record what is known so far about a run that goes on.

        Raises:
            RunEnded: where the run has been closed meanwhile, or its lease has expired.
        """

        def change(pipe: Pipeline) -> None:
            _require_running(pipe, run)
            _require_lease(pipe, run)
            pipe.multi()
            pipe.hset(keys.run(run.id), mapping=to_hash(run))

        self.redis.transaction(change, keys.run(run.id), *_lease(run))

    def fail_run(self, run: Run, error: str, traceback: str) -> Run:
        """Record that a run failed, with its error in one sentence and the traceback.

        Raises:
            RunEnded: where the run has been closed meanwhile.
        """
        failed = replace(run, status="failed", finished=utc_now(), error=error, traceback=traceback)

        def close(pipe: Pipeline) -> None:
            _require_running(pipe, run)
            pipe.multi()
            pipe.hset(keys.run(run.id), mapping=to_hash(failed))
            pipe.srem(keys.RUNNING, run.id)
            bus.append(pipe, RunFailed(source="trainer", model=run.model, run=run.id, error=error))

        self.redis.transaction(close, keys.run(run.id))
        return failed

    def running(self) -> list[Run]:
        """The runs that have begun and not ended."""
        with self.redis.pipeline(transaction=False) as pipe:
            for run_id in self.redis.smembers(keys.RUNNING):
                pipe.hgetall(keys.run(run_id))
            return [from_hash(Run, found) for found in pipe.execute() if found]

    def run(self, run_id: str) -> Run:
        """The run of this id, or `UnknownName`."""
        found = self.redis.hgetall(keys.run(run_id))
        if not found:
            raise UnknownName("run", run_id, [run.id for run in self.runs(limit=200)])
        return from_hash(Run, found)

    def runs(self, model: str | None = None, limit: int = 50) -> list[Run]:
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

    # --- versions

    def models(self) -> list[str]:
        """Names of all models that were declared or trained."""
        return sorted(self.redis.smembers(keys.MODELS))

    def require_model(self, model: str) -> None:
        """Raise `UnknownName` for a model that is neither declared nor trained."""
        if not self.redis.sismember(keys.MODELS, model):
            raise UnknownName("model", model, self.models())

    def register(self, run: Run, package: str, *, promote: bool, champion: int | None) -> Version:
        """Number the run's package as the model's next version, record that the run succeeded and, if `promote`,
        let the alias `champion` name it: all in one transaction with the events.

        `champion` is the version that the decision to promote was made against (None: there was none).

        Raises:
            Conflict: where another version is champion by now, so that the decision must be made again.
            RunEnded: where the run has been closed meanwhile, its lease has expired, or it has a version already.
        """

        def change(pipe: Pipeline) -> Version:
            _require_running(pipe, run)
            _require_lease(pipe, run)
            number = int(pipe.get(keys.versions(run.model)) or 0) + 1
            now = _number(pipe.hget(keys.aliases(run.model), CHAMPION))
            if promote and now != champion:
                raise Conflict(f"champion of {run.model!r} is version {now} by now, not {champion}; decide again")
            created = utc_now()
            version = Version(
                model=run.model,
                version=number,
                run=run.id,
                created=created,
                package=package,
                fields=run.fields,
                definitions=run.definitions,
                metrics=run.metrics,
            )
            done = replace(run, status="succeeded", stage="done", finished=created, version=number, package=package)
            pipe.multi()
            pipe.set(keys.versions(run.model), number)
            pipe.hset(keys.version(run.model, number), mapping=to_hash(version))
            pipe.hset(keys.run(run.id), mapping=to_hash(done))
            pipe.srem(keys.RUNNING, run.id)
            bus.append(
                pipe,
                ModelTrained(source="trainer", model=run.model, version=number, run=run.id, metrics=run.metrics),
            )
            if promote:
                _move(pipe, run.model, AliasMove(
                    time=created, alias=CHAMPION, version=number, previous=champion, kind="promote", by="trainer",
                    reason=run.decision,
                ))  # fmt: skip
            return version

        watched = (keys.run(run.id), *_lease(run), keys.versions(run.model), keys.aliases(run.model))
        version: Version = self.redis.transaction(change, *watched, value_from_callable=True)
        return version

    def version(self, model: str, number: int) -> Version:
        """A version of a model, or `UnknownName`."""
        found = self.redis.hgetall(keys.version(model, number))
        if not found:
            self.require_model(model)
            raise UnknownName("version", str(number), [str(v.version) for v in self.versions(model, limit=10)])
        return from_hash(Version, found)

    def versions(self, model: str, limit: int = 50) -> list[Version]:
        """The newest versions of a model, newest first."""
        newest = int(self.redis.get(keys.versions(model)) or 0)
        with self.redis.pipeline(transaction=False) as pipe:
            for number in range(newest, max(0, newest - limit), -1):
                pipe.hgetall(keys.version(model, number))
            return [from_hash(Version, found) for found in pipe.execute() if found]

    def live_versions(self) -> list[Version]:
        """Every version that an alias names, and those that rolling one back would return to."""
        return [self.version(model, number) for model in self.models() for number in sorted(self._live(model))]

    def _live(self, model: str) -> set[int]:
        aliases = self.aliases(model)
        moves = self.history(model) if aliases else []
        return {*aliases.values(), *(number for alias in aliases for number in promoted(moves, alias)[-2:])}

    # --- aliases

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version number."""
        return {alias: int(number) for alias, number in self.redis.hgetall(keys.aliases(model)).items()}

    def champions(self) -> dict[str, int]:
        """Model to the version that its alias `champion` names, of all models that have one."""
        models = self.models()
        with self.redis.pipeline(transaction=False) as pipe:
            for model in models:
                pipe.hget(keys.aliases(model), CHAMPION)
            return {model: int(number) for model, number in zip(models, pipe.execute(), strict=True) if number}

    def promote(self, model: str, version: int, *, alias: str = CHAMPION, by: str, reason: str = "") -> AliasMove:
        """Let `alias` name `version`, in one transaction with its history and its event.

        Raises:
            UnknownName: for a model or version that does not exist.
        """
        self.version(model, version)

        def change(pipe: Pipeline) -> AliasMove:
            previous = _number(pipe.hget(keys.aliases(model), alias))
            pipe.multi()
            return _move(pipe, model, AliasMove(
                time=utc_now(), alias=alias, version=version, previous=previous, kind="promote", by=by, reason=reason
            ))  # fmt: skip

        return self._transaction(change, model)

    def rollback(self, model: str, *, alias: str = CHAMPION, by: str, reason: str = "") -> AliasMove:
        """Let `alias` name the version that it named before its present one was promoted.

        Raises:
            UnknownName: for an unknown model.
            Conflict: where there is no earlier version to go back to.
        """
        self.require_model(model)

        def change(pipe: Pipeline) -> AliasMove:
            stack = promoted(_moves(pipe.xrange(keys.alias_history(model))), alias)
            if len(stack) < 2:
                raise Conflict(f"alias {alias!r} of {model!r} never named another version; nothing to roll back to")
            pipe.multi()
            return _move(pipe, model, AliasMove(
                time=utc_now(), alias=alias, version=stack[-2], previous=stack[-1], kind="rollback", by=by,
                reason=reason,
            ))  # fmt: skip

        return self._transaction(change, model)

    def history(self, model: str) -> list[AliasMove]:
        """Every move of every alias of a model, oldest first."""
        return _moves(self.redis.xrange(keys.alias_history(model)))

    def _transaction(self, change: Any, model: str) -> AliasMove:
        """Run `change` until nobody else moved an alias of the model meanwhile."""
        watched = (keys.aliases(model), keys.alias_history(model))
        move: AliasMove = self.redis.transaction(change, *watched, value_from_callable=True)
        return move


def promoted(moves: Sequence[AliasMove], alias: str) -> list[int]:
    """The versions that `alias` was promoted to and not rolled back from, oldest first; the last is the present one."""
    stack: list[int] = []
    for move in moves:
        if move.alias != alias:
            continue
        if move.kind == "rollback":
            del stack[-1:]
        elif not stack or stack[-1] != move.version:
            stack.append(move.version)
    return stack


def _move(pipe: Pipeline, model: str, move: AliasMove) -> AliasMove:
    """Queue the commands of an alias move on a pipeline that is in MULTI."""
    pipe.hset(keys.aliases(model), move.alias, str(move.version))
    pipe.xadd(keys.alias_history(model), to_hash(move), maxlen=HISTORY_LENGTH)
    event = ModelPromoted(
        source="registry", model=model, alias=move.alias, version=move.version, previous=move.previous,
        by=move.by, reason=move.reason,
    )  # fmt: skip
    bus.append(pipe, event)
    return move


def _require_running(pipe: Pipeline, run: Run) -> None:
    status, error = pipe.hmget(keys.run(run.id), "status", "error")
    if status != "running":
        raise RunEnded(run.id, status, error)


def _require_lease(pipe: Pipeline, run: Run) -> None:
    if run.lease and not pipe.exists(run.lease):
        raise RunEnded(run.id, "lost", "its worker did not renew its lease in time")


def _lease(run: Run) -> tuple[str, ...]:
    """The lease's key, to be watched, if the run has a lease."""
    return (run.lease,) if run.lease else ()


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _moves(entries: Sequence[tuple[str, Mapping[str, str]]]) -> list[AliasMove]:
    return [from_hash(AliasMove, fields) for _, fields in entries]
