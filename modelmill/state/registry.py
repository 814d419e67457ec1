"""Versions in Redis. Whatever changes, changes in one transaction with the event that tells of it.

The registry is plain text: `redis-cli HGETALL model:user_target:7`. Dictionaries become fields with dotted names, such
as `metrics.accuracy`. Aliases are in `modelmill.state.aliases`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from redis.client import Pipeline

from modelmill.errors import Conflict, InvalidRequest, NotFound, Pruned, UnknownName
from modelmill.state import bus, keys
from modelmill.state.aliases import CHAMPION, ROLLBACKS, Aliases, AliasMove, live, move_alias, number
from modelmill.state.connections import Redis
from modelmill.state.events import ModelTrained, VersionsPruned
from modelmill.state.records import from_hash, to_hash
from modelmill.state.runs import Run, Runs, lease_of, require_lease, require_running, write, write_fields
from modelmill.times import utc_now

__all__ = ["CHAMPION", "AliasMove", "Registry", "Version"]


@dataclass(frozen=True, kw_only=True)
class Version:
    """An immutable, numbered model package, and what was said of it since."""

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
    gates: dict[str, str] = field(default_factory=dict)
    """Gate to whether it held, with its figures: `passed: ...` or `failed: ...`."""
    tags: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """Time to who said what."""
    pruned: str = ""
    """When it was pruned; its package is gone since, or being removed."""
    pruned_because: str = ""
    freed: int | None = None
    """Bytes that were removed, once all are."""

    @property
    def failed(self) -> dict[str, str]:
        """The gates that did not hold, and what they said."""
        return {name: said for name, said in self.gates.items() if said.startswith("failed")}

    def require_package(self) -> None:
        """Raise `Pruned` where the package was removed."""
        if self.pruned:
            raise Pruned(self.model, self.version, self.pruned, self.pruned_because)


class Registry(Aliases):
    """Reads and changes the registry in `redis` (a client that decodes to text)."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.runs = Runs(redis)
        self.remarks = Remarks(redis)

    def register(
        self, run: Run, package: str, *, promote: bool, champion: int | None, alias: str = CHAMPION
    ) -> Version:
        """Number the run's package as the model's next version, record that the run succeeded and, if `promote`,
        let `alias` name it: all in one transaction with the events.

        `champion` is the version that the decision to promote was made against (None: there was none).

        Raises:
            Conflict: where another version is champion by now, so that the decision must be made again.
            RunEnded: where the run has been closed meanwhile, its lease has expired, or it has a version already.
        """

        def change(pipe: Pipeline) -> Version:
            require_running(pipe, run)
            require_lease(pipe, run)
            next_one = int(pipe.get(keys.versions(run.model)) or 0) + 1
            now, named = map(number, pipe.hmget(keys.aliases(run.model), CHAMPION, alias))
            if promote and now != champion:
                raise Conflict(f"champion of {run.model!r} is version {now} by now, not {champion}; decide again")
            created = utc_now()
            version = Version(
                model=run.model,
                version=next_one,
                run=run.id,
                created=created,
                package=package,
                fields=run.fields,
                definitions=run.definitions,
                metrics=run.metrics,
                gates=run.gates,
            )
            done = replace(run, status="succeeded", stage="done", finished=created, version=next_one, package=package)
            pipe.multi()
            pipe.set(keys.versions(run.model), next_one)
            pipe.hset(keys.version(run.model, next_one), mapping=to_hash(version))
            pipe.zadd(keys.stored_versions(run.model), {str(next_one): next_one})
            write(pipe, done)
            pipe.srem(keys.RUNNING, run.id)
            bus.append(
                pipe,
                ModelTrained(
                    source="trainer", model=run.model, version=next_one, run=run.id, metrics=run.metrics,
                    decision=run.decision, gates=run.gates,
                ),
            )  # fmt: skip
            if promote:
                move_alias(pipe, run.model, AliasMove(
                    time=created, alias=alias, version=next_one, previous=named, kind="promote", by="trainer",
                    reason=run.decision,
                ), run.gates)  # fmt: skip
            return version

        watched = (keys.run(run.id), *lease_of(run), keys.versions(run.model), keys.aliases(run.model))
        version: Version = self.redis.transaction(change, *watched, value_from_callable=True)
        return version

    def version(self, model: str, version: int) -> Version:
        """A version of a model, or `UnknownName`."""
        found = self.redis.hgetall(keys.version(model, version))
        if not found:
            self.require_model(model)
            raise UnknownName("version", str(version), [str(v.version) for v in self.versions(model, limit=10)])
        return from_hash(Version, found)

    def named(self, model: str, name: str) -> Version:
        """The version of a model that people name so: by its number, or by an alias.

        Raises:
            UnknownName: for an unknown model, version or alias.
        """
        if name.isdecimal():
            return self.version(model, int(name))
        self.require_model(model)
        aliases = self.aliases(model)
        if name not in aliases:
            raise UnknownName("alias", name, aliases)
        return self.version(model, aliases[name])

    def versions(self, model: str, limit: int = 50) -> list[Version]:
        """The newest versions of a model, newest first."""
        newest = int(self.redis.get(keys.versions(model)) or 0)
        return self._versions(model, range(newest, max(0, newest - limit), -1))

    def live_versions(self) -> list[Version]:
        """Every version that an alias names, and those that `ROLLBACKS` rollbacks of one would return to."""
        return [version for model in self.models() for version in self._versions(model, sorted(self.live(model)))]

    def prune(self, model: str, keep: int, needed: Mapping[int, str], *, by: str, dry_run: bool = False) -> Plan:
        """Mark the versions as pruned that `plan_retirement` does not keep, with the event that tells of it; from
        then on no alias can name them. Their files are the caller's to remove.

        Args:
            keep: how many of the newest versions stay in any case.
            needed: further versions that are not to go, and why.

        Returns:
            What stays and why, and what goes; with `dry_run` nothing was changed.

        Raises:
            UnknownName: for an unknown model.
        """
        self.require_model(model)
        because = f"keep={keep}"

        def change(pipe: Pipeline) -> Plan:
            stored = [int(one) for one in pipe.zrange(keys.stored_versions(model), 0, -1)]
            marked = self._pruned(model, stored)
            held = Held([one for one in stored if one not in marked], self.aliases(model), self.stacks(model), needed)
            plan = plan_retirement(held, keep)
            pipe.multi()
            if plan.pruned and not dry_run:
                now = utc_now()
                for one in plan.pruned:
                    pipe.hset(keys.version(model, one), mapping={"pruned": now, "pruned_because": because})
                bus.append(
                    pipe,
                    VersionsPruned(source="registry", model=model, versions=list(plan.pruned), by=by, reason=because),
                )
            return plan

        watched = (keys.stored_versions(model), keys.aliases(model), keys.alias_history(model))
        plan: Plan = self.redis.transaction(change, *watched, value_from_callable=True)
        return plan

    def stored(self, model: str) -> int:
        """How many versions have their packages in the storage."""
        return int(self.redis.zcard(keys.stored_versions(model)))

    def pruned_with_files(self, model: str) -> list[Version]:
        """The versions that were pruned and whose files have not all been removed yet."""
        stored = [int(one) for one in self.redis.zrange(keys.stored_versions(model), 0, -1)]
        return self._versions(model, sorted(self._pruned(model, stored)))

    def record_removed(self, version: Version, freed: int) -> None:
        """Record that the files of a pruned version, so many bytes, are gone."""
        with self.redis.pipeline() as pipe:
            pipe.hset(keys.version(version.model, version.version), "freed", str(freed))
            pipe.zrem(keys.stored_versions(version.model), str(version.version))
            pipe.execute()

    def _versions(self, model: str, numbers: Iterable[int]) -> list[Version]:
        with self.redis.pipeline(transaction=False) as pipe:
            for one in numbers:
                pipe.hgetall(keys.version(model, one))
            return [from_hash(Version, found) for found in pipe.execute() if found]

    def _pruned(self, model: str, numbers: Sequence[int]) -> set[int]:
        """Those of the versions that were pruned."""
        with self.redis.pipeline(transaction=False) as pipe:
            for one in numbers:
                pipe.hget(keys.version(model, one), "pruned")
            return {one for one, pruned in zip(numbers, pipe.execute(), strict=True) if pruned}


# --- which versions of a model stay in the storage, and why. Pure: what is known goes in, what is to be done comes out


@dataclass(frozen=True)
class Held:
    """What is known of a model's versions."""

    stored: Sequence[int]
    """Versions whose packages are in the storage, in order."""
    aliases: Mapping[str, int]
    stacks: Mapping[str, Sequence[int]]
    """Alias to the versions that it was promoted to and not rolled back from, the present one last."""
    needed: Mapping[int, str]
    """Further versions that are not to go, and why."""


@dataclass(frozen=True)
class Plan:
    """What stays and what goes."""

    kept: Mapping[int, str]
    """Version to why it stays."""
    pruned: Sequence[int]
    """Versions that go, in order."""


def plan_retirement(held: Held, keep: int) -> Plan:
    """Keep the newest `keep` versions, what an alias names, what rolling one back returns to, and what is needed."""
    reasons = dict(held.needed)
    reasons |= dict.fromkeys(live(held.aliases, held.stacks), f"one of {ROLLBACKS} rollbacks returns to it")
    reasons |= dict.fromkeys(held.stored[max(0, len(held.stored) - keep) :], f"one of the newest {keep}")
    reasons |= {version: f"alias {alias} names it" for alias, version in held.aliases.items()}
    stored = set(held.stored)
    return Plan(
        {version: reason for version, reason in sorted(reasons.items()) if version in stored},
        [version for version in held.stored if version not in reasons],
    )


# --- what people say of versions and runs: tags, one value each, and notes, which are only ever added.
#
# They are fields beside those that were recorded, `tags.stage` and `notes.2026-11-25T12:00:00.000000Z`, so that
# `redis-cli HGETALL run:...` shows them and nothing that was recorded is ever written again.

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
MAX_REMARKS = 100
"""Tags, and notes, of one version or run."""


class Remarks:
    """Writes tags and notes in `redis` (a client that decodes to text); they are read with what they are about."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def tag_version(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Give a version these tags; an empty value takes the tag away.

        Raises:
            NotFound: for a version that does not exist.
            InvalidRequest: for a name that cannot be one, or more than `MAX_REMARKS` tags.
        """
        self._tag(_version(model, version), tags)

    def tag_run(self, run: str, tags: Mapping[str, str]) -> None:
        """Give a run these tags; an empty value takes the tag away.

        Raises:
            NotFound, InvalidRequest: as `tag_version` does.
        """
        self._tag(_run(run), tags)

    def note_version(self, model: str, version: int, text: str, *, by: str) -> None:
        """Add a note to a version.

        Raises:
            NotFound: for a version that does not exist.
            InvalidRequest: where it has `MAX_REMARKS` notes.
        """
        self._note(_version(model, version), text, by)

    def note_run(self, run: str, text: str, *, by: str) -> None:
        """Add a note to a run.

        Raises:
            NotFound, InvalidRequest: as `note_version` does.
        """
        self._note(_run(run), text, by)

    def _tag(self, of: _Subject, tags: Mapping[str, str]) -> None:
        for tag in tags:
            if not NAME.fullmatch(tag):
                raise InvalidRequest(
                    f"tag {tag!r}: expected letters, digits, _, . and -, not starting with a digit, at most 100"
                )

        def change(pipe: Pipeline) -> None:
            present = {field for field in _known(pipe, of) if field.startswith("tags.")}
            given = {f"tags.{tag}": value for tag, value in tags.items() if value}
            gone = [f"tags.{tag}" for tag, value in tags.items() if not value]
            _require_room(of, "tags", len((present | given.keys()) - set(gone)))
            pipe.multi()
            of.write(pipe, given, gone)

        self.redis.transaction(change, of.key)

    def _note(self, of: _Subject, text: str, by: str) -> None:
        def change(pipe: Pipeline) -> None:
            present = [field for field in _known(pipe, of) if field.startswith("notes.")]
            _require_room(of, "notes", len(present) + 1)
            pipe.multi()
            of.write(pipe, {f"notes.{utc_now()}": f"{by}: {text}" if by else text}, ())

        self.redis.transaction(change, of.key)


@dataclass(frozen=True)
class _Subject:
    """What is remarked on."""

    kind: str
    name: str
    key: str
    write: Callable[[Pipeline, Mapping[str, str], Collection[str]], None]
    """Writes fields and takes others away, on a pipeline that is in MULTI."""


def _version(model: str, version: int) -> _Subject:
    key = keys.version(model, version)

    def write(pipe: Pipeline, fields: Mapping[str, str], gone: Collection[str]) -> None:
        if fields:
            pipe.hset(key, mapping=fields)
        if gone:
            pipe.hdel(key, *gone)

    return _Subject("version", f"{model}@{version}", key, write)


def _run(run: str) -> _Subject:
    return _Subject("run", run, keys.run(run), lambda pipe, fields, gone: write_fields(pipe, run, fields, gone))


def _known(pipe: Pipeline, of: _Subject) -> list[str]:
    """The fields of the version or run; `pipe` watches its key."""
    fields: list[str] = pipe.hkeys(of.key)
    if not fields:
        raise NotFound(f"{of.kind} {of.name!r} is not known", **{of.kind: of.name})
    return fields


def _require_room(of: _Subject, what: str, count: int) -> None:
    if count > MAX_REMARKS:
        raise InvalidRequest(f"{of.kind} {of.name} would have {count} {what}; at most {MAX_REMARKS} are kept")
