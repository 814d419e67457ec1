"""What holds in a process of the feature service: definitions, and all that is computed from new rows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from modelmill.columns.types import Column
from modelmill.declare import applied
from modelmill.declare.declarations import Feature
from modelmill.declare.definitions import Definitions
from modelmill.errors import ModelmillError
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.windows import TileGroup
from services.feature.aggregates import tile_groups
from services.feature.store.backfill import Computed

log = logging.getLogger(__name__)


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
