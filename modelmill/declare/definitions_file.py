"""The user's definitions file: run it, and check that everything it declares fits together."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from modelmill.columns.types import Column
from modelmill.declare.code_version import code_version
from modelmill.declare.declarations import Declared, Entity, Feature, Model, Source, collecting
from modelmill.declare.definitions import Definitions, extra_columns, model_features
from modelmill.declare.features import Aggregate, RequestFeature
from modelmill.declare.triggers import After
from modelmill.declare.user_code import UserCode, read
from modelmill.errors import DefinitionsError, UnknownName, did_you_mean, printable


def load(path: Path | str) -> Definitions:
    """Run the definitions file at `path` and check what it declares.

    Raises:
        DefinitionsError: with file, line and reason, for a missing file, any error that running it raises, and
            any declaration that cannot work.
    """
    path = Path(path).absolute()
    try:
        code = read(path)
    except OSError as error:
        raise DefinitionsError(str(path), 0, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DefinitionsError(str(path), 0, str(error)) from None
    return load_code(code)


def load_code(code: UserCode) -> Definitions:
    """Run `code`, which lies or lay on some disk, and check what it declares.

    Raises:
        DefinitionsError: as `load` does.
    """
    with collecting() as declared:
        try:
            code.run()
        except (Exception, SystemExit) as error:
            raise _failed(code, error) from error
    return _checked(code, declared)


def _failed(code: UserCode, error: BaseException) -> DefinitionsError:
    """What running the file raised, at its line there; and where in a module that it imports."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(code.path)]
    reason = printable(error) if type(error) is ValueError else f"{type(error).__name__}: {printable(error)}"
    if isinstance(error, SystemExit):
        reason += ': it ends the process that reads it; put what does under `if __name__ == "__main__":`'
    if isinstance(error, SyntaxError) and error.filename == str(code.path):
        lines, reason = [error.lineno], error.msg
    modules = [str(code.path.parent / name) for name in code.modules]
    if deeper := [frame for frame in frames if frame.filename in modules]:
        reason += f" ({deeper[-1].filename}:{deeper[-1].lineno})"
    return DefinitionsError(str(code.path), (lines[-1] if lines else 0) or 0, reason)


def _checked(code: UserCode, declared: Sequence[Declared]) -> Definitions:
    named: dict[type[Declared], dict[str, Any]] = {Entity: {}, Source: {}, Model: {}}
    derived = [item for item in declared if isinstance(item, Feature)]
    aggregates = [item for item in declared if isinstance(item, Aggregate)]
    for item in declared:
        if isinstance(item, Feature | Aggregate | RequestFeature):
            continue
        same = named[type(item)]
        if item.name in same:
            reason = f"{item.kind} {item.name!r} is declared twice, first in line {same[item.name].line}"
            raise DefinitionsError(item.file, item.line, reason)
        same[item.name] = item
    by_source: dict[str, dict[str, Feature]] = {name: {} for name in named[Source]}
    definitions = Definitions(code, named[Entity], named[Source], by_source, named[Model])
    computed = [item for item in declared if isinstance(item, RequestFeature)]
    for item in (*derived, *named[Source].values(), *aggregates, *computed, *named[Model].values()):
        try:
            if isinstance(item, Feature):
                item.version = code_version(code, item.function, str(item.column))
                _place(definitions, item)
            elif isinstance(item, Source):
                _check_source(definitions, item)
            elif isinstance(item, Aggregate):
                _place_aggregate(definitions, item)
            elif isinstance(item, RequestFeature):
                item.version = code_version(code, item.function, f"{item.column} of {' '.join(item.needs)}")
                _place_request_feature(definitions, item, [other.name for other in computed])
            else:
                _check_model(definitions, item)
        except (ValueError, UnknownName) as error:
            raise DefinitionsError(item.file, item.line, f"{item.kind} {item.name!r}: {error}") from None
    return definitions


def _place(definitions: Definitions, derived: Feature) -> None:
    """Put a derived feature under the one source whose rows it is computed from."""
    if isinstance(derived.of, Source):
        source = derived.of
    else:
        own = [s for s in definitions.sources.values() if s.entity is derived.of]
        if len(own) != 1:
            names = ", ".join(s.name for s in own) or "none"
            raise ValueError(f"entity {derived.of.name!r} has as its own sources: {names}; write @feature(<source>)")
        source = own[0]
    _require_declared(definitions.sources, source)
    if source.entity is None:
        raise ValueError(f"source {source.name!r} is about several entities; features need a source about one")
    if derived.name in (source.entity.key, source.event_time, *definitions.columns(source)):
        raise ValueError(f"source {source.name!r} has a column or feature of this name already")
    definitions.features[source.name][derived.name] = derived


def _check_source(definitions: Definitions, source: Source) -> None:
    for entity in source.entities:
        _require_declared(definitions.entities, entity)
    if source.entity is None:
        return
    for other in takewhile(lambda other: other is not source, definitions.sources.values()):
        if other.entity is source.entity:
            shared = definitions.columns(source).keys() & definitions.columns(other).keys()
            if shared:
                raise ValueError(f"shares {', '.join(sorted(shared))} with source {other.name!r} of the same entity")


def _place_aggregate(definitions: Definitions, aggregate: Aggregate) -> None:
    """Put an aggregate among the features of its entity."""
    source, entity = aggregate.source, aggregate.entity
    _require_declared(definitions.sources, source)
    own = [s for s in definitions.sources.values() if s.entity is entity]
    if aggregate.name in (entity.key, *(s.event_time for s in own), *definitions.features_of(entity.name)):
        raise ValueError(f"entity {entity.name!r} has a column or feature of this name already; add name=")
    definitions.aggregates.setdefault(entity.name, {})[aggregate.name] = aggregate


def _place_request_feature(definitions: Definitions, feature: RequestFeature, all_names: Sequence[str]) -> None:
    """Put a request-time feature among the others, where no feature or join key has its name and its needs exist."""
    known = {name for model in definitions.models.values() for name in model.inputs}
    for entity in definitions.entities.values():
        features = definitions.features_of(entity.name)
        if feature.name in (entity.key, *features):
            raise ValueError(f"entity {entity.name!r} has a feature or key of this name already")
        known |= {name for plain in features for name in (plain, f"{entity.name}.{plain}")}
    if feature.name in definitions.request_features:
        raise ValueError("another one of this name is declared already")
    for need in feature.needs:
        if need in all_names:
            raise ValueError(f"needs {need!r}, a request feature too; expected inputs and stored features alone")
        if need not in known:
            raise ValueError(f"needs {need!r}, no feature and no input of any model{did_you_mean(need, known)}")
    definitions.request_features[feature.name] = feature


def _check_model(definitions: Definitions, model: Model) -> None:
    for entity in model.entities:
        _require_declared(definitions.entities, entity)
    features = model_features(definitions, model)
    refs = [*features.stored, *features.auxiliary]
    source = definitions.label_source(model)
    _require_declared(definitions.sources, source)
    for entity in model.entities:
        if entity not in source.entities:
            raise ValueError(f"source {source.name!r} has no rows about entity {entity.name!r}")
    for kind, name in (*(("label", name) for name in model.labels), *(("input", name) for name in model.inputs)):
        if name not in source.columns:
            near = did_you_mean(name, source.columns)
            raise ValueError(f"{kind} {name!r} is not a column of source {source.name!r}{near}")
    for name, column in model.inputs.items():
        if (stored := source.columns[name]).dtype != column.dtype:
            raise ValueError(f"input {name!r} is {column.dtype} here, but {stored.dtype} in source {source.name!r}")
    taken = (*model.features, *model.inputs)
    if (weight := model.weighting.column) in source.columns and source.columns[weight].dtype == "str":
        raise ValueError(f"sample_weight {weight!r} is a column of texts; expected one of numbers")
    if len({source.columns[label].dtype for label in model.labels}) > 1:
        types = ", ".join(f"{label} {source.columns[label].dtype}" for label in model.labels)
        raise ValueError(f"label: the types are {types}; expected labels of one type")
    for label in model.labels:
        if label in taken or any(r.column.name == label and r.source == source.name for r in refs):
            raise ValueError(f"label {label!r} is also a feature or an input, or what one is computed from")
    if repeated := {name for name in taken if taken.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(repeated))} is named twice among features and inputs")
    extra_columns(definitions, model)
    for trigger in model.train:
        if isinstance(trigger, After) and trigger.source is not None:
            definitions.source(trigger.source)
    _check_defaults(model, {ref.name: ref.column for ref in refs})


def _check_defaults(model: Model, features: Mapping[str, Column]) -> None:
    for name, value in model.defaults.items():
        if name not in features:
            raise ValueError(f"default {name!r} is not one of the model's features{did_you_mean(name, features)}")
        if not features[name].allows(value):
            raise ValueError(f"default of {name!r} is {value!r}; expected {features[name].dtype}")


def _require_declared(known: Mapping[str, Declared], item: Declared) -> None:
    """What an installed module declares is missing when the file is loaded again, as that module is run once."""
    if known.get(item.name) is not item:
        raise ValueError(
            f"{item.kind} {item.name!r} is not declared in this file; declare it here, or in a module beside it"
        )
