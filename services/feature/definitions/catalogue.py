"""The definitions in force in this process, what is computed from new rows, and how other definitions come into force.

A changed file comes into force in steps, so that whoever is killed in between, another goes on:

1. its text is kept and announced in Redis (`applying`): from then on new rows are computed with its features too;
2. what stored rows lack of them is computed (`services.feature.store.backfill`);
3. one transaction registers it and tells everyone; training frames and lookups read its features from then on;
4. fields that no definitions in force and no live version need any more are removed.

A version that serves, or that a rollback would serve, keeps what it was trained with: its fields are computed by the
functions of its own definitions until no alias needs them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from modelmill.columns.types import Column
from modelmill.declare import applied
from modelmill.declare.declarations import Feature, Source
from modelmill.declare.definitions import Definitions, model_features
from modelmill.declare.definitions_file import load
from modelmill.errors import Conflict, DefinitionsError, ModelmillError
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY, Redis
from modelmill.state.events import AliasDeleted, DefinitionsApplied, ModelPromoted
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from modelmill.windows import TileGroup
from services.feature.definitions.plan import (
    Plan,
    contradictions,
    describe,
    made_up_rows,
    plan,
    register,
    registered,
    stored_rows,
    try_out,
    try_out_computed,
)
from services.feature.store import history, online, tile_groups
from services.feature.store.backfill import Computed, Progress, Tell, backfill, put_online, require_few_failures
from services.feature.store.journal import alone

log = logging.getLogger(__name__)

APPLY_WAIT_SECONDS = 60.0
"""Seconds to wait for others who are applying definitions."""


@dataclass(frozen=True)
class Applied:
    """What applying the definitions changed."""

    changes: list[str]
    backfilled: int
    """Rows for which features were computed."""
    failed: dict[str, int]
    """New feature to the number of stored rows on which its function failed."""
    warnings: list[str] = field(default_factory=list)
    """What works, but costs more than one may expect."""


class Catalogue:
    """Reads the definitions in force from Redis, where there are any, otherwise from the file at `path`."""

    def __init__(self, redis: Redis, storage: Storage, path: Path) -> None:
        self.redis = redis
        self.storage = storage
        self.path = path
        self.progress = Progress(redis)
        self.state = read(redis, applied.in_force(redis) or load(path))

    @property
    def definitions(self) -> Definitions:
        """The definitions in force."""
        return self.state.definitions

    def plan(self, fingerprint: str | None = None) -> Plan:
        """What `apply` would do with the file as it is now."""
        return self._plan(self._load(fingerprint))

    def require_versions(self, fingerprint: str | None, elsewhere: Mapping[str, str]) -> None:
        """Refuse a file of which another process has found other versions of its functions.

        Raises:
            DefinitionsError: at the first such function.
        """
        applied.require_versions(self._load(fingerprint), elsewhere)

    def lacking(self, fingerprint: str | None = None) -> int:
        """The number of history files that would have to be computed before the file could be in force."""
        definitions = self._load(fingerprint)
        return sum(
            not fields.keys() <= set(history.stored_columns(self.storage, name)) or unfilled
            for source in definitions.sources.values()
            for fields in [definitions.derived(source.name)]
            for unfilled in [not all(tile_groups.is_filled(self.redis, g) for g in definitions.tile_groups(source))]
            if fields or unfilled
            for name in history.names(self.storage, source.name)
        )

    def apply(self, fingerprint: str | None = None) -> Applied:
        """Put the file in force, in the steps above, and return when it is.

        Raises:
            DefinitionsError: for a mistake in the file, and for a function that is not what it is declared to be.
            Conflict: where stored rows do not allow the change or a feature fails on too many of them, where the file
                is not the one with `fingerprint`, or where others are applying definitions for longer than
                `APPLY_WAIT_SECONDS`.
        """
        with alone(self.redis, keys.DEFINITIONS_LOCK, "applying definitions", patience=APPLY_WAIT_SECONDS):
            definitions = self._load(fingerprint)
            with self.progress.recording(definitions.fingerprint) as tell:
                return self._apply(definitions, tell)

    def check(self) -> Plan:
        """Raise what `apply` would raise for the file, as far as it can be seen at once."""
        return self._check(self._load(None))

    def begin(self, fingerprint: str | None = None) -> Plan:
        """Check the file and apply it in the background; `progress` tells how far it is.

        Raises:
            DefinitionsError, Conflict: as `apply`, as far as it can be seen at once.
        """
        definitions = self._load(fingerprint)
        plan = self._check(definitions)
        self.progress.begin(definitions.fingerprint)
        Thread(target=self.resume, args=(definitions.fingerprint,), name="apply", daemon=True).start()
        return plan

    def resume(self, fingerprint: str | None = None) -> None:
        """Apply the file; a reason why it cannot be is told in the log and by `progress`."""
        try:
            self.apply(fingerprint)
        except (ModelmillError, *AWAY) as error:
            log.error("the former definitions stay in force: %s", error)
        except Exception:
            log.exception("the former definitions stay in force")

    def _apply(self, definitions: Definitions, tell: Tell) -> Applied:
        plan = self._check(definitions)
        before = self.definitions
        for one in (before, definitions):
            applied.keep(self.redis, one)
        known = read(self.redis, before, before.fingerprint)
        if (
            self.redis.hget(keys.DEFINITIONS, "applying") != definitions.fingerprint
        ):  # otherwise others had begun with it
            self._remove_former_tiles(definitions, known)
        self._announce(definitions)
        announced = self.state
        try:
            rows = self._compute(definitions, known, tell)
            failed = require_few_failures(self.storage, definitions, before) if rows else {}
        except ModelmillError:
            self._announce(before)
            self._remove_unneeded(announced)
            raise
        if plan.changes or self.redis.hget(keys.DEFINITIONS, "fingerprint") != definitions.fingerprint:
            register(self.redis, definitions, plan.changes)
        self.refresh()
        self._remove_unneeded(announced)
        return Applied(plan.changes, rows, failed, plan.warnings)

    def _announce(self, definitions: Definitions) -> None:
        """Let new rows be computed for these definitions too, here and, soon, in other processes."""
        for source in definitions.sources.values():
            tile_groups.announce(self.redis, definitions.tile_groups(source))
        self.redis.hset(keys.DEFINITIONS, "applying", definitions.fingerprint)
        self.refresh()

    def _check(self, definitions: Definitions) -> Plan:
        plan = self._plan(definitions)
        if plan.refusals:
            raise Conflict("; ".join(plan.refusals), reasons=plan.refusals)
        self._try_out(definitions)
        return plan

    def follow(self, stop: Flag, position: str) -> None:
        """Take over what other processes apply; runs until `stop` is set."""
        for entries in bus.follow(self.redis, keys.EVENTS_FEATURES, position, stop):
            with suppress(*AWAY):
                if any(isinstance(event, DefinitionsApplied) for _, event in entries):
                    self.refresh()
                self.catch_up()

    def follow_versions(self, stop: Flag, position: str) -> None:
        """Compute what a version needs that has just become live again, and drop what none needs any more."""
        for entries in bus.follow(self.redis, keys.EVENTS_MODELS, position, stop):
            if any(isinstance(event, ModelPromoted | AliasDeleted) for _, event in entries):
                try:
                    self.serve_live_versions()
                except (*AWAY, ModelmillError) as error:
                    log.warning("cannot compute what live versions need, trying at the next promotion: %s", error)

    def catch_up(self) -> None:
        """Compute new rows with other definitions too, if another process has begun to apply them.

        Whoever ingests looks here after writing, so that no row lacks what a backfill that began meanwhile computes.
        """
        if self.redis.hget(keys.DEFINITIONS, "applying") not in (None, self.state.applying):
            self.refresh()

    def serve_live_versions(self) -> None:
        """Compute what live versions need and stored rows lack, and remove what nothing needs any more."""
        before = self.state
        self.refresh()
        if self.state.unannounced() or self.state.adds_to(before):
            with alone(self.redis, keys.DEFINITIONS_LOCK, "applying definitions", patience=APPLY_WAIT_SECONDS):
                tile_groups.announce(self.redis, self.state.unannounced())
                self.refresh()
                self._compute(self.definitions, before, lambda *_: None)
        self._remove_unneeded(before)

    def _compute(self, definitions: Definitions, known: InForce, tell: Tell) -> int:
        """Compute for stored rows what they lack, and bring online what is not `known` to be; return the rows."""
        for source in definitions.sources.values():
            columns = source.columns.keys() - known.columns.get(source.name, {}).keys()
            self._remove_former_values(source, columns)
            if new := columns | (self.state.fields(source.name) - known.fields(source.name)):
                put_online(self.redis, self.storage, source, new)
            for group in self.state.groups.get(source.name, {}):
                tile_groups.fill(self.redis, self.storage, group, lambda rows: tell(rows, rows))
        return backfill(self.redis, self.storage, definitions, self.state.computed, tell)

    def _remove_former_tiles(self, definitions: Definitions, known: InForce) -> None:
        """Remove tiles that a process left which was killed amid removing them: rows since then are not in them."""
        for source in definitions.sources.values():
            for group in definitions.tile_groups(source):
                if group not in known.groups.get(source.name, {}):
                    tile_groups.remove(self.redis, group.name)

    def _remove_former_values(self, source: Source, columns: Set[str]) -> None:
        """Remove from the online store what stands there in fields of these names: of the time when the source, or
        another one of its entity, had such columns before."""
        stored = columns & history.all_columns(self.storage) if columns and source.entity is not None else set()
        if stored and source.entity is not None:
            online.remove(self.redis, source.entity.name, stored)

    def _remove_unneeded(self, before: InForce) -> None:
        """Remove from the online store what was computed before and is no more."""
        for source, groups in before.groups.items():
            for group in groups.keys() - self.state.groups.get(source, {}).keys():
                tile_groups.remove(self.redis, group.name)
        for source, fields in before.computed.items():
            gone = fields.keys() - self.state.fields(source)
            declared = self.definitions.sources.get(source)
            if gone and declared is not None and declared.entity is not None:
                online.remove(self.redis, declared.entity.name, gone)
                log.info("removed %s, which nothing needs any more", ", ".join(sorted(gone)))

    def refresh(self) -> None:
        """Take over what holds by now, whoever has changed it."""
        self.state = read(self.redis, applied.in_force(self.redis) or self.definitions)

    def _load(self, fingerprint: str | None) -> Definitions:
        definitions = load(self.path)
        if fingerprint not in (None, definitions.fingerprint):
            raise Conflict(
                f"the feature service reads {self.path}, which holds something else than the file that was checked;"
                " apply the file that the services were started with, or copy yours there, with the modules beside it"
            )
        applied.require_versions(definitions, applied.versions(self.redis, definitions.fingerprint))
        return definitions

    def _plan(self, definitions: Definitions) -> Plan:
        with_rows = {name for name in definitions.sources if history.names(self.storage, name)}
        served = {
            name: f"{version.model} version {version.version}"
            for version in Registry(self.redis).live_versions()
            for name in version.fields
        }
        now = registered(self.redis)
        compared = plan(now, describe(definitions), with_rows, served)
        refusals = [
            refusal
            for name in sorted(with_rows)
            for refusal in contradictions(self.storage, definitions.sources[name], now.get(keys.source(name), {}))
        ]
        return replace(compared, refusals=compared.refusals + refusals, warnings=warnings(definitions))

    def _try_out(self, definitions: Definitions) -> None:
        for source in definitions.sources.values():
            features = definitions.features[source.name].values()
            for rows in (made_up_rows(source), stored_rows(self.storage, source)) if features else ():
                for feature in features:
                    if reason := try_out(feature, rows):
                        raise DefinitionsError(str(self.path), feature.line, f"feature {feature.name!r}: {reason}")
        for model in definitions.models.values():
            for ref in model_features(definitions, model).computed:
                if reason := try_out_computed(ref):
                    what = f"{ref.feature.kind} {ref.feature.name!r}"
                    raise DefinitionsError(str(self.path), ref.feature.line, f"{what}: {reason}")


# --- what holds in a process of the feature service: definitions, and all that is computed from new rows.


@dataclass(frozen=True)
class InForce:
    """What holds in this process now; replaced as a whole."""

    definitions: Definitions
    applying: str
    """Fingerprint of the definitions that are being applied, or of those in force."""
    computed: Computed
    """What is computed from each new row: for the definitions in force, those being applied, and live versions."""
    columns: Mapping[str, Mapping[str, Column]]
    """Source to its columns, by name; for the definitions in force and those being applied."""
    groups: Mapping[str, Mapping[TileGroup, int | None]]
    """Source to the tile groups that its rows are added to, each with its start; for the same three."""

    def fields(self, source: str) -> Set[str]:
        """What is computed from each new row of a source, by the names under which it is stored."""
        return self.computed.get(source, {}).keys()

    def unannounced(self) -> list[TileGroup]:
        """The groups that have no start yet, so that no rows are added to them."""
        return [group for groups in self.groups.values() for group, start in groups.items() if start is None]

    def adds_to(self, before: InForce) -> bool:
        """Whether anything is computed from the rows of any source that was not before."""
        return any(self.fields(source) - before.fields(source) for source in self.computed)


def read(redis: Redis, definitions: Definitions, applying: str | None = None) -> InForce:
    """What holds with these definitions in force, while those that Redis names, or `applying`, are applied."""
    applying = applying or redis.hget(keys.DEFINITIONS, "applying") or definitions.fingerprint
    computed: dict[str, dict[str, Feature]] = {name: definitions.derived(name) for name in definitions.sources}
    columns = {source.name: source.columns for source in definitions.sources.values()}
    groups = {source.name: set(definitions.tile_groups(source)) for source in definitions.sources.values()}
    if applying != definitions.fingerprint:
        coming = applied.load(redis, applying)
        for source in coming.sources.values():
            computed[source.name] = computed.get(source.name, {}) | coming.derived(source.name)
            columns[source.name] = columns.get(source.name, {}) | source.columns
            groups.setdefault(source.name, set()).update(coming.tile_groups(source))
    for name, pinned in _pinned(redis, computed, groups):
        if isinstance(pinned, TileGroup):
            groups[name].add(pinned)
        else:
            computed[name][pinned.field] = pinned
    starts = {name: {g: tile_groups.start(redis, g) for g in found} for name, found in groups.items()}
    return InForce(definitions, applying, computed, columns, starts)


def _pinned(
    redis: Redis, computed: Mapping[str, Mapping[str, Feature]], groups: Mapping[str, Collection[TileGroup]]
) -> Iterator[tuple[str, Feature | TileGroup]]:
    """What live versions are served from and these lack, as their own definitions declare it, with its source."""
    for version in Registry(redis).live_versions():
        for pinned in version.fields:
            source, _, name = pinned.partition(".")
            if "@" not in name or source not in computed or name in computed[source]:
                continue
            if any(group.name == name for group in groups[source]):
                continue
            try:
                own = applied.load(redis, version.definitions)
                declared = own.derived(source) | {g.name: g for g in own.tile_groups(own.source(source))}
                yield source, declared[name]
            except (ModelmillError, KeyError) as error:
                log.error("%s, which %s is served from, cannot be computed: %s", pinned, version.model, error)


# --- what definitions cost that work, but not as their author may expect: sentences for a plan's warnings.

COMPACT_FIELDS = 512
"""Fields up to which Redis keeps a hash compact (`hash-max-listpack-entries`)."""
BYTES_COMPACT, BYTES_LARGE = 40, 88
"""Bytes that a field with a number takes in Redis 7.0, in a hash of 512 fields and in one of 513."""


def warnings(definitions: Definitions) -> list[str]:
    """A sentence for each entity whose online hash is too wide to stay compact in Redis."""
    return list(_wide_hashes(definitions))


def _wide_hashes(definitions: Definitions) -> Iterator[str]:
    for entity in definitions.entities:
        features = definitions.features_of(entity)
        fields = len(features) + len({ref.source for ref in features.values()})  # and a time for each source
        if fields > COMPACT_FIELDS:
            yield (
                f"entity {entity!r} has {len(features)} features, {fields} fields with their times: over"
                f" {COMPACT_FIELDS} a Redis hash stops being compact, so that one entity takes about"
                f" {fields * BYTES_LARGE // 1000} kB instead of {fields * BYTES_COMPACT // 1000} kB"
            )
