"""What the features of a model are made of: stored ones that are read, and request-time ones that are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelmill.columns import Column
from modelmill.declarations import Model
from modelmill.definitions import Definitions, FeatureRef
from modelmill.errors import UnknownName
from modelmill.request_features import RequestFeature


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
