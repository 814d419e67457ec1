"""What a definitions file declares, checked, and the questions that it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from modelmill.aggregates import Aggregate
from modelmill.columns import Column
from modelmill.declarations import Entity, Feature, Model, Source
from modelmill.errors import UnknownName
from modelmill.request_features import RequestFeature
from modelmill.tiles import FUNCTIONS, TileGroup
from modelmill.user_code import UserCode

T = TypeVar("T")


@dataclass(frozen=True)
class FeatureRef:
    """A feature as a model names it, resolved to where it is stored."""

    name: str
    entity: str
    source: str
    column: Column
    field: str
    """The name of the column in the source's history, and of the field in the entity's hash;
    an aggregate has neither, so it is its name."""
    aggregate: Aggregate | None = None
    """For what is read from tiles: how."""


@dataclass(frozen=True)
class Definitions:
    """A checked definitions file: every name in it resolves."""

    code: UserCode = field(repr=False)
    """The file and the modules of the user's own that it imports, as they ran."""
    entities: dict[str, Entity]
    sources: dict[str, Source]
    features: dict[str, dict[str, Feature]] = field(repr=False)
    """Derived features, by source and name."""
    models: dict[str, Model]
    aggregates: dict[str, dict[str, Aggregate]] = field(default_factory=dict, repr=False)
    """Windowed aggregates, by entity and name."""
    request_features: dict[str, RequestFeature] = field(default_factory=dict, repr=False)
    """Features that are computed at request time."""

    @property
    def path(self) -> Path:
        """Where the file lies, or lay when it was applied."""
        return self.code.path

    @property
    def fingerprint(self) -> str:
        """That of the code, by which it is known everywhere."""
        return self.code.fingerprint

    def functions(self) -> dict[str, Feature | RequestFeature]:
        """What is computed by functions, as `users.feature_3`; a request feature has no source before its name."""
        stored = {f"{source}.{name}": one for source, found in self.features.items() for name, one in found.items()}
        return {**stored, **self.request_features}

    def entity(self, name: str) -> Entity:
        """The entity of this name, or `UnknownName`."""
        return _known("entity", name, self.entities)

    def source(self, name: str) -> Source:
        """The source of this name, or `UnknownName`."""
        return _known("source", name, self.sources)

    def model(self, name: str) -> Model:
        """The model of this name, or `UnknownName`."""
        return _known("model", name, self.models)

    def columns(self, source: Source) -> dict[str, Column]:
        """What a row of `source` tells, by name: its columns, then its derived features."""
        return {**source.columns, **{name: f.column for name, f in self.features[source.name].items()}}

    def derived(self, source: str) -> dict[str, Feature]:
        """The derived features of a source by the name under which they are stored."""
        return {f.field: f for f in self.features.get(source, {}).values()}

    def features_of(self, entity: str) -> dict[str, FeatureRef]:
        """The online features of an entity by name.

        They are the columns and derived features of each of its own sources, and the aggregates of any source's rows
        about it.
        """
        own = {
            name: FeatureRef(name, entity, source.name, column, derived[name].field if name in derived else name)
            for source in self.sources.values()
            if source.entity is not None and source.entity.name == entity
            for derived in [self.features[source.name]]
            for name, column in self.columns(source).items()
        }
        aggregates = self.aggregates.get(entity, {}).items()
        return own | {name: FeatureRef(name, entity, a.source.name, a.column, name, a) for name, a in aggregates}

    def tile_groups(self, source: Source) -> list[TileGroup]:
        """The tiles that rows of `source` are added to, one group for each entity and hop of its aggregates."""
        together: dict[tuple[str, int], list[Aggregate]] = {}
        for aggregates in self.aggregates.values():
            for aggregate in aggregates.values():
                if aggregate.source is source:
                    together.setdefault((aggregate.entity.name, aggregate.reading.hop), []).append(aggregate)
        return [_tile_group(aggregates) for aggregates in together.values()]

    def tile_group(self, aggregate: Aggregate) -> TileGroup:
        """The tiles that `aggregate` is read from."""
        wanted = (aggregate.entity.name, aggregate.reading.hop)
        return next(g for g in self.tile_groups(aggregate.source) if (g.entity, g.hop) == wanted)

    def resolve(self, entities: Sequence[str], features: Sequence[str]) -> list[FeatureRef]:
        """Where each of `features` (plain or `entity.feature`) of these entities is stored.

        Raises:
            UnknownName: for a feature that none of them has.
            ValueError: for a plain name that several of them have.
        """
        refs = []
        known = {entity: self.features_of(entity) for entity in entities}
        for name in features:
            entity, _, plain = name.rpartition(".")
            owners = [e for e in ([entity] if entity else entities) if plain in known.get(e, {})]
            if not owners:
                everything = [n for names in known.values() for n in names]
                raise UnknownName("feature", name, everything)
            if len(owners) > 1:
                raise ValueError(f"feature {name!r} is ambiguous; write {' or '.join(f'{o}.{plain}' for o in owners)}")
            ref = known[owners[0]][plain]
            refs.append(replace(ref, name=name))
        return refs

    def label_source(self, model: Model) -> Source:
        """The source that holds the label of `model`.

        Raises:
            ValueError: where the model names none and not exactly one of its entities' sources has the label.
        """
        if model.source is not None:
            return model.source
        wanted = {entity.name for entity in model.entities}
        holders = [
            source
            for source in self.sources.values()
            if set(model.labels) <= source.columns.keys() and wanted & {entity.name for entity in source.entities}
        ]
        if len(holders) != 1:
            names = ", ".join(source.name for source in holders) or "none"
            raise ValueError(f"label {model.label!r}: expected one source with this column, found {names}; add source=")
        return holders[0]


def _tile_group(aggregates: Sequence[Aggregate]) -> TileGroup:
    """The group of aggregates of one source, entity and hop."""
    first, readings = aggregates[0], [aggregate.reading for aggregate in aggregates]
    statistics = {(reading.column, statistic) for reading in readings for statistic in FUNCTIONS[reading.function]}
    return TileGroup(
        first.source.name,
        first.entity.name,
        first.entity.key,
        first.reading.hop,
        max(reading.window + reading.available_after for reading in readings),
        tuple(sorted(statistics)),
        tuple(sorted({(reading.column, reading.dtype) for reading in readings})),
    )


def _known(kind: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise UnknownName(kind, name, known)
    return known[name]
