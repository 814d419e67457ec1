"""What is registered, against what the definitions file declares: plan the changes, apply them, follow others' changes.

The catalogue in Redis is a few hashes: `entity:{name}`, `source:{name}`, `features:{entity}` and `model:{name}`.
`describe` writes a definitions file as exactly these hashes, so that a plan is a comparison of dictionaries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Thread

from redis.exceptions import LockError

from modelmill import bus, keys
from modelmill.connections import AWAY, Redis
from modelmill.declarations import Source
from modelmill.definitions import Definitions, load
from modelmill.errors import Conflict, ModelmillError
from modelmill.events import DefinitionsApplied, utc_now
from modelmill.storage import Storage
from services.feature import history
from services.feature.backfill import backfill
from services.feature.costs import warnings

log = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after which a process that was killed while it applied definitions no longer keeps others from it."""
PATIENCE = 60.0
"""Seconds to wait for others who are applying definitions."""
FIXED_FIELDS = ("key", "entities", "event_time")
"""Fields of an entity or a source that may not change while rows of it are stored."""

Hashes = dict[str, dict[str, str]]
"""Redis key to the fields of its hash."""


@dataclass(frozen=True)
class Plan:
    """What applying the definitions would change, a sentence each, and the reasons why it cannot be done."""

    changes: list[str]
    refusals: list[str]
    warnings: list[str] = field(default_factory=list)
    """What works, but costs more than one may expect."""


@dataclass(frozen=True)
class Applied:
    """What applying the definitions changed."""

    changes: list[str]
    backfilled: int
    """Rows whose derived features were computed again."""
    warnings: list[str] = field(default_factory=list)


class Catalogue:
    """The definitions in force in this process. `definitions` is replaced as a whole when the file is applied."""

    def __init__(self, redis: Redis, storage: Storage, path: Path) -> None:
        self.redis = redis
        self.storage = storage
        self.path = path
        self.definitions = load(path)
        self._lock = Lock()
        self._unavailable: str | None = None
        """Fingerprint of definitions that were applied elsewhere, but are not what the file here holds."""

    def plan(self, fingerprint: str | None = None) -> Plan:
        """What `apply` would do with the file as it is now."""
        return self._plan(self._load(fingerprint))

    def apply(self, fingerprint: str | None = None) -> Applied:
        """Load the file, backfill its derived features, register it, and tell everyone.

        The registration comes last: killed before it, the next `apply` does what is left.

        Raises:
            DefinitionsError: for a mistake in the file.
            Conflict: where stored rows do not allow the change, where the file is not the one with `fingerprint`, or
                where others are applying definitions for longer than `PATIENCE` seconds.
        """
        with self._lock, _alone(self.redis):
            definitions = self._load(fingerprint)
            plan = self._plan(definitions)
            if plan.refusals:
                raise Conflict("; ".join(plan.refusals), reasons=plan.refusals)
            self.definitions = definitions  # from here on new rows get the new features, here and, soon, elsewhere
            self.redis.hset(keys.DEFINITIONS, "applying", definitions.fingerprint)
            rows = backfill(self.redis, self.storage, definitions)
            if plan.changes or self.redis.hget(keys.DEFINITIONS, "fingerprint") != definitions.fingerprint:
                _register(self.redis, definitions, plan.changes)
        return Applied(plan.changes, rows, plan.warnings)

    def follow(self, stop: Flag, position: str) -> None:
        """Load the file again whenever another process applies it; runs until `stop` is set."""
        for entries in bus.follow(self.redis, keys.EVENTS_FEATURES, position, stop):
            if any(isinstance(event, DefinitionsApplied) for _, event in entries):
                self._unavailable = None
            with suppress(*AWAY):
                self.catch_up()

    def catch_up(self) -> None:
        """Load the file again if another process has begun to apply another state of it.

        Whoever ingests looks here after writing, so that no row keeps features of definitions that are gone.
        """
        wanted = self.redis.hget(keys.DEFINITIONS, "applying")
        if wanted in (None, self.definitions.fingerprint, self._unavailable):
            return
        try:
            self.definitions = self._load(wanted)
        except ModelmillError as error:
            self._unavailable = wanted
            log.error("keeping the former definitions: %s", error)

    def _load(self, fingerprint: str | None) -> Definitions:
        definitions = load(self.path)
        if fingerprint not in (None, definitions.fingerprint):
            raise Conflict(
                f"the feature service reads {self.path}, which holds something else than the file that was checked;"
                " apply the file that the services were started with, or copy yours there"
            )
        return definitions

    def _plan(self, definitions: Definitions) -> Plan:
        with_rows = {name for name in definitions.sources if history.names(self.storage, name)}
        compared = plan(registered(self.redis), describe(definitions), with_rows)
        return replace(compared, warnings=warnings(definitions))


def describe(definitions: Definitions) -> Hashes:
    """The definitions as the hashes that register them."""
    hashes: Hashes = {}
    for entity in definitions.entities.values():
        hashes[keys.entity(entity.name)] = {"key": entity.key}
        hashes[keys.features(entity.name)] = {
            name: f"{ref.column} {ref.source}{f' {derived.version}' if derived else ''}"
            for name, ref in definitions.features_of(entity.name).items()
            for derived in [definitions.features[ref.source].get(name)]
        }
    for source in definitions.sources.values():
        hashes[keys.source(source.name)] = {
            "entities": " ".join(entity.name for entity in source.entities),
            "event_time": source.event_time or "",
            **{f"column.{name}": str(column) for name, column in source.columns.items()},
            **{f"constraints.{name}": str(c.constraints) for name, c in source.columns.items() if c.constraints},
            **_described(source),
        }
    for model in definitions.models.values():
        hashes[keys.model(model.name)] = {
            "entities": " ".join(entity.name for entity in model.entities),
            "features": " ".join(model.features),
            "inputs": " ".join(f"{name}:{column}" for name, column in model.inputs.items()),
            "label": model.label,
            "source": definitions.label_source(model).name,
            "metric": model.metric,
            "promote": model.promote,
            "train": "; ".join(str(schedule) for schedule in model.train),
        }
    return hashes


def _described(source: Source) -> dict[str, str]:
    """What a source declares beside its columns, where it does."""
    declared = {
        "max_future": f"{source.max_future} s" if source.event_time else "",
        "expect": str(source.expect),
        "description": source.description,
        "owner": source.owner,
        "tags": " ".join(source.tags),
        **{f"description.{name}": column.description for name, column in source.columns.items()},
    }
    return {name: text for name, text in declared.items() if text}


def registered(redis: Redis) -> Hashes:
    """The hashes that are registered now."""
    entities, sources, models = (sorted(redis.smembers(s)) for s in (keys.ENTITIES, keys.SOURCES, keys.MODELS))
    wanted = [
        *(key for entity in entities for key in (keys.entity(entity), keys.features(entity))),
        *(keys.source(name) for name in sources),
        *(keys.model(name) for name in models),
    ]
    with redis.pipeline(transaction=False) as pipe:
        for key in wanted:
            pipe.hgetall(key)
        return {key: found for key, found in zip(wanted, pipe.execute(), strict=True) if found}


def plan(now: Hashes, declared: Hashes, with_rows: set[str]) -> Plan:
    """Compare what is registered with what is declared; `with_rows` are the sources that have history."""
    changes, refusals = [], []
    guarded = {keys.source(name) for name in with_rows} & now.keys()
    if guarded:
        guarded |= {key for key in now if key.startswith(keys.entity(""))}
    for key in sorted(now.keys() | declared.keys()):
        before, after = now.get(key, {}), declared.get(key, {})
        for name in sorted(before.keys() | after.keys()):
            change = _change(key, name, before.get(name), after.get(name))
            if change is None:
                continue
            changes.append(change)
            if key in guarded and after and (reason := _refusal(name, before.get(name), after.get(name))):
                refusals.append(f"{change}: {reason}")
    return Plan(changes, refusals)


def _change(key: str, name: str, before: str | None, after: str | None) -> str | None:
    if before == after:
        return None
    if before is None:
        return f"{key} {name}: added ({after or 'none'})"
    return f"{key} {name}: removed" if after is None else f"{key} {name}: {before or 'none'} -> {after or 'none'}"


def _refusal(name: str, before: str | None, after: str | None) -> str | None:
    """Why stored rows do not allow this change, and the way out."""
    if name in FIXED_FIELDS and before is not None:
        return "rows are stored under it; declare a new source instead"
    if not name.startswith("column."):
        return None
    if before is None and after is not None and not after.endswith("?"):
        return f"stored rows have no value for it; declare it as {after} | None"
    if before is not None and after is not None and before.rstrip("?") != after.rstrip("?"):
        return "stored values have the former type; declare a new column instead"
    return None


@contextmanager
def _alone(redis: Redis) -> Iterator[None]:
    """Hold the lock on the definitions, renewing it until the block ends."""
    lock = redis.lock(keys.DEFINITIONS_LOCK, timeout=LEASE, thread_local=False)
    if not lock.acquire(blocking_timeout=PATIENCE):
        raise Conflict("others are applying definitions at this moment; try again later")
    done = Flag()

    def renew() -> None:
        while not done.wait(LEASE / 3):
            with suppress(LockError, *AWAY):
                lock.reacquire()

    Thread(target=renew, name="definitions-lock", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        with suppress(LockError, *AWAY):
            lock.release()


def _register(redis: Redis, definitions: Definitions, changes: list[str]) -> None:
    declared = describe(definitions)
    with redis.pipeline() as pipe:
        gone = [key for key in registered(redis) if key not in declared]
        if gone:
            pipe.delete(*gone)
        for key, fields in declared.items():
            pipe.delete(key)
            if fields:
                pipe.hset(key, mapping=fields)
        for names, members in ((keys.ENTITIES, definitions.entities), (keys.SOURCES, definitions.sources)):
            pipe.delete(names)
            if members:
                pipe.sadd(names, *members)
        if definitions.models:
            pipe.sadd(keys.MODELS, *definitions.models)
        pipe.hset(
            keys.DEFINITIONS,
            mapping={"fingerprint": definitions.fingerprint, "path": str(definitions.path), "applied": utc_now()},
        )
        bus.append(pipe, DefinitionsApplied(source="feature", fingerprint=definitions.fingerprint, changes=changes))
        pipe.execute()
