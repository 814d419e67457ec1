"""Versions and aliases in Redis. Whatever changes, changes in one transaction with the event that tells of it.

The registry is plain text: `redis-cli HGETALL model:user_target:7`, `HGETALL model:user_target:aliases`. Dictionaries
become fields with dotted names, such as `metrics.accuracy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis.client import Pipeline

from modelmill import bus, keys
from modelmill.connections import Redis
from modelmill.errors import Conflict, UnknownName
from modelmill.events import ModelPromoted, ModelTrained, utc_now
from modelmill.records import from_hash, to_hash
from modelmill.runs import Run, Runs, lease_of, require_lease, require_running, write

CHAMPION = "champion"
"""The alias that predictors serve."""
HISTORY_LENGTH = 10_000
"""Alias moves kept per model."""


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


class Registry:
    """Reads and changes the registry in `redis` (a client that decodes to text)."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.runs = Runs(redis)

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
            require_running(pipe, run)
            require_lease(pipe, run)
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
            write(pipe, done)
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

        watched = (keys.run(run.id), *lease_of(run), keys.versions(run.model), keys.aliases(run.model))
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


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _moves(entries: Sequence[tuple[str, Mapping[str, str]]]) -> list[AliasMove]:
    return [from_hash(AliasMove, fields) for _, fields in entries]
