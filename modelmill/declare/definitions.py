"""What a definitions file declares, checked, and the questions that it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from modelmill.columns.types import Column
from modelmill.declare.declarations import Entity, Feature, Model, Source
from modelmill.declare.features import Aggregate, RequestFeature
from modelmill.declare.splits import AtRandom, ByGroup, ByTime
from modelmill.declare.user_code import UserCode
from modelmill.errors import UnknownName, did_you_mean
from modelmill.windows import FUNCTIONS, TileGroup

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


# --- what the features of a model are made of: stored ones that are read, and request-time ones that are computed


@dataclass(frozen=True)
class Need:
    """Something that a request-time feature needs, resolved to a value of the model."""

    name: str
    """Of the model's input or feature, or of an auxiliary one."""
    column: Column
    given: bool
    """Whether it comes with the request."""


@dataclass(frozen=True)
class ComputedRef:
    """A request-time feature as a model uses it."""

    feature: RequestFeature
    needs: dict[str, Need]
    """By the names under which its function gets them."""


@dataclass(frozen=True)
class ModelFeatures:
    """What the features of a model are made of."""

    stored: list[FeatureRef]
    """Those that are read, in the model's order."""
    computed: list[ComputedRef]
    """Those that are computed at request time, in the model's order."""
    auxiliary: list[FeatureRef]
    """What only `computed` ones need: read, and not put into the model; each named `entity.feature`."""


def model_features(definitions: Definitions, model: Model) -> ModelFeatures:
    """What the features of `model` are made of.

    Raises:
        UnknownName: for a feature that none of its entities has.
        ValueError: for an ambiguous one, and for a need that is neither an input nor a feature of its entities.
    """
    declared = definitions.request_features
    entities = [entity.name for entity in model.entities]
    stored = definitions.resolve(entities, [name for name in model.features if name not in declared])
    known = {(ref.entity, ref.column.name): ref for ref in stored}
    read = len(known)
    computed = []
    for name in model.features:
        if name in declared:
            needs = {need: _need(definitions, model, declared[name], need, known) for need in declared[name].needs}
            computed.append(ComputedRef(declared[name], needs))
    return ModelFeatures(stored, computed, list(known.values())[read:])


def sources_of(definitions: Definitions, model: Model) -> list[str]:
    """The sources that a model's frame is made of, that of its labels first."""
    features = model_features(definitions, model)
    read = (ref.source for ref in (*features.stored, *features.auxiliary))
    return list(dict.fromkeys([definitions.label_source(model).name, *read]))


def _need(
    definitions: Definitions,
    model: Model,
    feature: RequestFeature,
    name: str,
    known: dict[tuple[str, str], FeatureRef],
) -> Need:
    """What `feature` means by a name; a stored feature that is not among the `known` ones is added to them."""
    what = f"{feature.kind} {feature.name!r} needs {name!r}"
    try:
        [ref] = definitions.resolve([entity.name for entity in model.entities], [name])
    except (UnknownName, ValueError) as error:
        if name in model.inputs:
            return Need(name, model.inputs[name], given=True)
        raise ValueError(f"{what}: no input of the model; {error}") from None
    if name in model.inputs:
        raise ValueError(
            f"{what}, which is an input and a feature; rename the input, or write {ref.entity}.{name} for the feature"
        )
    ref = known.setdefault((ref.entity, ref.column.name), replace(ref, name=f"{ref.entity}.{ref.column.name}"))
    return Need(ref.name, ref.column, given=False)


# --- columns that a model's training frame carries beside features, inputs and labels: to split, part and weigh rows


def extra_columns(definitions: Definitions, model: Model) -> list[str]:
    """Join keys and columns of the label's source that the frame of `model` holds for its split, segments and weights.

    For a split by the user's function these are all of them.

    Raises:
        ValueError: for a column that the model and its label's source do not have.
    """
    source = definitions.label_source(model)
    in_frame = {*model.features, *model.inputs}
    more = [*(entity.key for entity in source.entities), *(name for name in source.columns if name not in model.labels)]
    wanted = {f"segments: {column!r}": column for column in model.segments}
    if (weight := model.weighting.column) is not None:
        wanted[f"sample_weight: {weight!r}"] = weight
    if isinstance(model.split, ByGroup):
        wanted[f"split: {model.split}: {model.split.column!r}"] = model.split.column
    for where, column in wanted.items():
        if column not in in_frame and column not in more:
            near = did_you_mean(column, [*in_frame, *more])
            raise ValueError(
                f"{where} is no feature or input of the model, no join key and no column of source {source.name!r}"
                f" beside the label{near}"
            )
    whole = model.split is not None and not isinstance(model.split, ByTime | ByGroup | AtRandom)
    return [column for column in more if column not in in_frame and (whole or column in wanted.values())]
