"""Aliases: movable names of versions. Every move is one transaction with its history and its event.

`redis-cli HGETALL model:user_target:aliases` shows what each names, `XRANGE model:user_target:history - +` how it came
about. A move may name the version that it expects to replace, and is refused where the alias names another by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from redis.client import Pipeline

from modelmill.errors import AliasMoved, Conflict, Pruned, UnknownName
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import AliasDeleted, ModelPromoted
from modelmill.state.records import from_hash, to_hash
from modelmill.times import utc_now

CHAMPION = "champion"
"""The alias that predictors serve."""
CHALLENGER = "challenger"
"""The alias of a version that is to be tried beside the champion."""
HISTORY_LENGTH = 10_000
"""Alias moves kept per model."""
ROLLBACKS = 5
"""How many rollbacks in a row find everything in its place: the packages are kept, and what they are served from goes
on being computed. Further back, a version may have been pruned, or its features may have to be computed again."""
NONE = 0
"""As the version that a move expects: that the alias names none yet. Versions are numbered from 1."""

Kind = Literal["promote", "rollback", "delete"]


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One move of an alias."""

    time: str
    alias: str
    version: int | None
    """What it names since; absent where it was deleted."""
    previous: int | None
    """What it named before; absent at the first."""
    kind: str
    """`promote`, `rollback` or `delete`."""
    by: str
    reason: str
    forced: list[str] = field(default_factory=list)
    """The gates that the version had failed and that were overruled."""


class Aliases:
    """Reads and moves the aliases of models in `redis` (a client that decodes to text)."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def models(self) -> list[str]:
        """Names of all models that were declared or trained."""
        return sorted(self.redis.smembers(keys.MODELS))

    def require_model(self, model: str) -> None:
        """Raise `UnknownName` for a model that is neither declared nor trained."""
        if not self.redis.sismember(keys.MODELS, model):
            raise UnknownName("model", model, self.models())

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

    def history(self, model: str, alias: str | None = None) -> list[AliasMove]:
        """The moves of every alias of a model, or of one, oldest first; the newest `HISTORY_LENGTH` of a model."""
        entries = self.redis.xrange(keys.alias_history(model))
        return [from_hash(AliasMove, fields) for _, fields in entries if alias in (None, fields["alias"])]

    def live(self, model: str) -> set[int]:
        """The versions that an alias of the model names, and those that `ROLLBACKS` rollbacks of one return to."""
        return live(self.aliases(model), self.stacks(model))

    def stacks(self, model: str) -> dict[str, list[int]]:
        """Alias to the versions that it was promoted to and not rolled back from, oldest first, the present one last.

        Much quicker than `history`, of which most is not looked at.
        """
        return stacks(_steps(self.redis.xrange(keys.alias_history(model))))

    def promote(
        self,
        model: str,
        version: int,
        *,
        alias: str = CHAMPION,
        by: str,
        reason: str = "",
        expected: int | None = None,
        forced: Sequence[str] = (),
    ) -> AliasMove:
        """Let `alias` name `version`.

        Args:
            expected: the version that the alias must name by then, or `NONE`; None where that does not matter.
            forced: the gates that the version failed and that are overruled, which is noted with the version too.

        Raises:
            UnknownName: for a model or version that does not exist.
            Pruned: for a version whose package was removed.
            AliasMoved: where the alias names another version than the expected one.
        """

        def change(pipe: Pipeline) -> AliasMove:
            previous = self._present(pipe, model, alias, expected)
            self._require_stored(pipe, model, version)
            now = utc_now()
            pipe.multi()
            if forced:
                overruled = f"{by}: forced as {alias} over {', '.join(forced)}: {reason}"
                pipe.hset(keys.version(model, version), f"notes.{now}", overruled)
            return move_alias(pipe, model, AliasMove(
                time=now, alias=alias, version=version, previous=previous, kind="promote", by=by, reason=reason,
                forced=list(forced),
            ))  # fmt: skip

        return self._transaction(change, model)

    def rollback(
        self,
        model: str,
        *,
        alias: str = CHAMPION,
        by: str,
        reason: str = "",
        to: int | None = None,
        expected: int | None = None,
    ) -> AliasMove:
        """Let `alias` name the version that it named before its present one was promoted, or `to`, an earlier one.

        Raises:
            UnknownName: for an unknown model.
            Conflict: where there is no earlier version to go back to, or `to` is none.
            Pruned: where its package was removed.
            AliasMoved: where the alias names another version than the expected one.
        """
        self.require_model(model)

        def change(pipe: Pipeline) -> AliasMove:
            previous = self._present(pipe, model, alias, expected)
            stack = stacks(_steps(pipe.xrange(keys.alias_history(model)))).get(alias, [])
            version = earlier(model, alias, stack, to)
            self._require_stored(pipe, model, version)
            pipe.multi()
            return move_alias(pipe, model, AliasMove(
                time=utc_now(), alias=alias, version=version, previous=previous, kind="rollback", by=by, reason=reason
            ))  # fmt: skip

        return self._transaction(change, model)

    def delete_alias(
        self, model: str, alias: str, *, by: str, reason: str = "", expected: int | None = None
    ) -> AliasMove:
        """Let `alias` name nothing; its history stays, but nothing can be rolled back to across this.

        Raises:
            UnknownName: for an unknown model or alias.
            AliasMoved: where the alias names another version than the expected one.
        """
        self.require_model(model)

        def change(pipe: Pipeline) -> AliasMove:
            previous = self._present(pipe, model, alias, expected)
            if previous is None:
                raise UnknownName("alias", alias, list(pipe.hkeys(keys.aliases(model))))
            move = AliasMove(
                time=utc_now(), alias=alias, version=None, previous=previous, kind="delete", by=by, reason=reason
            )
            pipe.multi()
            pipe.hdel(keys.aliases(model), alias)
            pipe.xadd(keys.alias_history(model), to_hash(move), maxlen=HISTORY_LENGTH)
            bus.append(
                pipe,
                AliasDeleted(source="registry", model=model, alias=alias, version=previous, by=by, reason=reason),
            )
            return move

        return self._transaction(change, model)

    def _present(self, pipe: Pipeline, model: str, alias: str, expected: int | None) -> int | None:
        """What the alias names now; `AliasMoved` where something else is expected."""
        present = number(pipe.hget(keys.aliases(model), alias))
        if expected is not None and (present or NONE) != expected:
            raise AliasMoved(model, alias, present, expected)
        return present

    def _require_stored(self, pipe: Pipeline, model: str, version: int) -> None:
        """Raise for a version that does not exist, or whose package does not any more."""
        pipe.watch(keys.version(model, version))
        known, pruned, because = pipe.hmget(keys.version(model, version), "version", "pruned", "pruned_because")
        if not known:
            self.require_model(model)
            newest = int(pipe.get(keys.versions(model)) or 0)
            raise UnknownName("version", str(version), [str(n) for n in range(newest, max(0, newest - 10), -1)])
        if pruned:
            raise Pruned(model, version, pruned, because)

    def _transaction(self, change: Callable[[Pipeline], AliasMove], model: str) -> AliasMove:
        """Run `change` until nobody else moved an alias of the model meanwhile."""
        watched = (keys.aliases(model), keys.alias_history(model))
        move: AliasMove = self.redis.transaction(change, *watched, value_from_callable=True)
        return move


Step = tuple[str, str, int | None]
"""Of a move: alias, kind, version."""


def stacks(steps: Iterable[Step]) -> dict[str, list[int]]:
    """Alias to the versions that it was promoted to and not rolled back from, oldest first; the last is the present."""
    found: dict[str, list[int]] = {}
    for alias, kind, version in steps:
        stack = found.setdefault(alias, [])
        if version is None:
            stack.clear()
        elif kind == "rollback":
            del stack[-1:]
            while stack and stack[-1] != version:
                del stack[-1]
            if not stack:  # the history is bounded: how this version was promoted is forgotten
                stack.append(version)
        elif not stack or stack[-1] != version:
            stack.append(version)
    return found


def live(aliases: Mapping[str, int], stacks: Mapping[str, Sequence[int]]) -> set[int]:
    """The versions that `aliases` name, and those that `ROLLBACKS` rollbacks of one return to."""
    reached = (version for alias in aliases for version in stacks.get(alias, ())[-1 - ROLLBACKS :])
    return {*aliases.values(), *reached}


def earlier(model: str, alias: str, stack: Sequence[int], to: int | None) -> int:
    """The version before the present one, or `to` if it is one of those before.

    Raises:
        Conflict: where there is none, or `to` is none of them.
    """
    if len(stack) < 2:
        raise Conflict(f"alias {alias!r} of {model!r} named no version before its present one; nothing to roll back to")
    if to is None:
        return stack[-2]
    if to not in stack[:-1]:
        named = ", ".join(map(str, stack[-2:-12:-1]))
        raise Conflict(
            f"alias {alias!r} of {model!r} did not name version {to} before its present one; it named {named}, newest"
            " first. Promote the version instead"
        )
    return to


def move_alias(pipe: Pipeline, model: str, move: AliasMove, gates: Mapping[str, str] | None = None) -> AliasMove:
    """Queue the commands of a move on a pipeline that is in MULTI; `gates` is what the version's gates said."""
    assert move.version is not None
    pipe.hset(keys.aliases(model), move.alias, str(move.version))
    pipe.xadd(keys.alias_history(model), to_hash(move), maxlen=HISTORY_LENGTH)
    event = ModelPromoted(
        source="registry", model=model, alias=move.alias, version=move.version, previous=move.previous,
        by=move.by, reason=move.reason, kind=move.kind, forced=move.forced, gates=dict(gates or {}),
    )  # fmt: skip
    bus.append(pipe, event)
    return move


def number(text: str | None) -> int | None:
    """A version number in Redis, absent where there is none."""
    return int(text) if text else None


def _steps(entries: Sequence[tuple[str, Mapping[str, str]]]) -> Iterable[Step]:
    return ((fields["alias"], fields["kind"], number(fields["version"])) for _, fields in entries)
