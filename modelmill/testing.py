"""Test a definitions file without services and without Redis: its feature functions, and whether its recipes fit.

    from modelmill import testing

    MILL = testing.load("mill.py")

    def test_a_share_is_of_the_whole():
        rows = testing.features(MILL, "customers", [{"orders": 4, "spent": 100.0}])
        assert rows["spent_per_order"].tolist() == [25.0]

    def test_the_recipe_learns():
        fitted = testing.fit(MILL, "orders_again", sample_rows)
        assert fitted.estimator.score(fitted.inputs, fitted.label) > 0.7

A file is read, a function called, its value judged and a model's features found by what the services do that with.
Two things are said here a second time, since this package imports no service, and scikit-learn only where a model is
served: how values become what an estimator gets, and that each `random_state` is the model's seed. A test holds both
against the trainer's. What is left to the services: constraints and expectations of rows, joins by time, windows, the
rows' weights, the held-out rows and the search.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from modelmill.columns.types import MAX_SHOWN_CHARACTERS, TYPES, Column, arrow_type, checked
from modelmill.declare.declarations import Feature, Model, Source
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef, model_features
from modelmill.declare.definitions_file import load
from modelmill.errors import InvalidRequest, Rejection, did_you_mean, printable

__all__ = ["Fitted", "Rows", "features", "fit", "load"]

Rows = pd.DataFrame | Sequence[Mapping[str, Any]]
"""Sample rows: a column a name. NaN and None are a missing value."""
Values = list[Any]


@dataclass(frozen=True)
class Fitted:
    """What became of a model's recipe on n sample rows."""

    estimators: dict[str, Any]
    """Each estimator that the model declares, by its name, fitted with the parameters that it is declared with."""
    inputs: pd.DataFrame
    """[n, inputs] what they were fitted on."""
    label: np.ndarray
    """[n], or [n, labels] where there are several."""

    @property
    def estimator(self) -> Any:
        """The first of them, which is the only one of a model without candidates."""
        return next(iter(self.estimators.values()))


def features(definitions: Definitions, source: str, rows: Rows) -> pd.DataFrame:
    """[n, features] the derived features of `source` for each of its rows; a function sees one row at a time.

    Join keys and columns that may be missing may be left out.

    Raises:
        UnknownName: for a source that is not declared.
        InvalidRequest: for a column that is missing or not declared, and for a value that its column does not allow.
        TypeError, ValueError: for a value of a function that is not what it declares; and whatever a function raises.
    """
    table = _table(definitions.source(source), _columns(rows))
    return pd.DataFrame({name: _series(_derived(one, table)) for name, one in definitions.features[source].items()})


def fit(definitions: Definitions, model: str, rows: Rows) -> Fitted:
    """Fit the recipe of `model` on sample rows of the source of its label, all of them.

    Derived features of that source are computed from them, and so are request-time features. What comes from other
    rows, such as an aggregate or a feature of another source, is a column of the sample, named as the model names it.
    Rows that lack a label, or a value of an input that is not nullable, are left out as in a training.

    Raises:
        UnknownName: for a model that is not declared.
        InvalidRequest: for a column that is missing, a value that its column does not allow, and where no row is left;
            whatever a function or fitting raises is passed on.
    """
    recipe = definitions.model(model)
    source, made_of = definitions.label_source(recipe), model_features(definitions, recipe)
    columns = _columns(rows)
    found: dict[str, Values] = {name: _read(columns, column) for name, column in recipe.inputs.items()}
    for ref in (*made_of.stored, *made_of.auxiliary):
        found[ref.name] = _stored(definitions, source, ref, columns)
    for computed in made_of.computed:
        found[computed.feature.name] = _computed(computed, found)
    fed = {ref.name: ref.column for ref in made_of.stored} | recipe.inputs
    fed |= {computed.feature.name: computed.feature.column for computed in made_of.computed}
    inputs = {name: fed[name] for name in (*recipe.features, *recipe.inputs)}
    labels = {name: source.columns[name] for name in recipe.labels}
    truth = {name: _read(columns, column, nullable=True) for name, column in labels.items()}
    needed = [*truth.values(), *(found[name] for name, column in inputs.items() if not column.nullable)]
    kept = [i for i, values in enumerate(zip(*needed, strict=True)) if None not in values]
    if not kept:
        raise InvalidRequest(f"no row to fit {model!r} on: each lacks the label {recipe.label!r} or an input")
    frame = pd.DataFrame({name: _fed([found[name][i] for i in kept], column.dtype) for name, column in inputs.items()})
    kinds = {name: arrow_type(column.dtype).to_pandas_dtype() for name, column in labels.items()}
    label = [np.array([truth[name][i] for i in kept], kind) for name, kind in kinds.items()]
    answer = label[0] if len(label) == 1 else np.column_stack(label)
    with definitions.code.importable():
        made = {one.name or model: _estimator(recipe, one.estimator) for one in recipe.search.candidates}
        return Fitted({name: one.fit(frame, answer) for name, one in made.items()}, frame, answer)


def _columns(rows: Rows) -> dict[str, Values]:
    """The values of each column, as Python has them; None where one is missing."""
    if not isinstance(rows, pd.DataFrame):
        names = dict.fromkeys(name for row in rows for name in row)
        rows = pd.DataFrame({name: _series([row.get(name) for row in rows]) for name in names})
    return {str(name): [_plain(value) for value in rows[name].tolist()] for name in rows}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)) else value


def _series(values: Values) -> pd.Series:
    """Values as they are: pandas would make floats of whole numbers where one is missing."""
    return pd.Series(values, dtype=object)


def _read(columns: Mapping[str, Values], column: Column, *, nullable: bool = False) -> Values:
    """The values of a column, each as its type has it.

    Raises:
        InvalidRequest: where the column is missing, and for the first value that it does not allow.
    """
    if column.name not in columns:
        near = did_you_mean(column.name, columns)
        raise InvalidRequest(f"column {column.name!r} is missing from the sample{near}", column=column.name)
    return [_allowed(value, row, column, nullable) for row, value in enumerate(columns[column.name], start=1)]


def _allowed(value: Any, row: int, column: Column, nullable: bool) -> Any:
    if column.dtype == "int" and isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes floats of them where one is missing
    if not (column.allows(value) or (nullable and value is None)):
        expected = TYPES[column.dtype].expected
        raise InvalidRequest(
            str(Rejection(row, column.name, printable(value, MAX_SHOWN_CHARACTERS), f"expected {expected}"))
        )
    return float(value) if column.dtype == "float" and value is not None else value


def _table(source: Source, columns: Mapping[str, Values]) -> pa.Table:
    """What feature functions see of rows: join keys and columns."""
    declared = [*(Column(entity.key, "str", False) for entity in source.entities), *source.columns.values()]
    known = [*(column.name for column in declared), *([source.event_time] if source.event_time else [])]
    for name in columns:
        if name not in known:
            near = did_you_mean(name, known)
            raise InvalidRequest(f"column {name!r} is not declared in source {source.name!r}{near}", column=name)
    rows = range(1, 1 + len(next(iter(columns.values()), [])))
    given: dict[str, Values] = {column.name: [None for _ in rows] for column in declared if column.nullable}
    given |= columns
    for entity in source.entities:
        given[entity.key] = [str(key) for key in given.get(entity.key, rows)]
    return pa.table({column.name: pa.array(_read(given, column), arrow_type(column.dtype)) for column in declared})


def _derived(feature: Feature, table: pa.Table) -> Values:
    """The values of a feature, of each row alone: in a batch they are no other."""
    return [_value(feature, table.slice(row, 1), row + 1) for row in range(len(table))]


def _value(feature: Feature, alone: pa.Table, number: int) -> Any:
    try:
        value = feature.call_batch(alone)[0] if feature.batch else feature.function(alone.to_pylist()[0])
        return checked(value, feature.column)
    except Exception as error:
        error.add_note(f"feature {feature.name!r}, row {number}: {alone.to_pylist()[0]}")
        raise


def _stored(definitions: Definitions, source: Source, ref: FeatureRef, columns: Mapping[str, Values]) -> Values:
    """The values of a stored feature: given by the model's name of it, otherwise those of the sample's own rows."""
    if ref.name in columns:
        return _read({ref.column.name: columns[ref.name]}, ref.column, nullable=True)
    if ref.aggregate or ref.source != source.name:
        what = "an aggregate of other rows" if ref.aggregate else f"of source {ref.source!r}"
        raise InvalidRequest(f"feature {ref.name!r} is {what}: give it as a column of the sample", column=ref.name)
    if ref.column.name not in definitions.features[source.name]:
        return _read(columns, ref.column, nullable=True)
    own = {entity.key for entity in source.entities} | source.columns.keys()
    table = _table(source, {name: values for name, values in columns.items() if name in own})
    return _derived(definitions.features[source.name][ref.column.name], table)


def _computed(ref: ComputedRef, found: Mapping[str, Values]) -> Values:
    """The values of a request-time feature; None where a need is missing that may not be."""
    required = [need.name for need in ref.needs.values() if not need.column.nullable]
    rows = range(len(next(iter(found.values()))))
    return [
        None
        if any(found[name][i] is None for name in required)
        else ref.feature.compute({name: found[need.name][i] for name, need in ref.needs.items()})
        for i in rows
    ]


def _fed(values: Values, dtype: str) -> pd.Series:
    """Values as an estimator gets them: text, a missing one empty, and of all else floats, a missing one NaN."""
    if dtype == "str":
        return _series(["" if value is None else value for value in values])
    return pd.Series([math.nan if value is None else value for value in values], dtype=np.float64)


def _estimator(recipe: Model, made: Any) -> Any:
    """What a recipe declares as an estimator, fresh, with the model's seed for each `random_state` left open."""
    made = made() if isinstance(made, type) or not hasattr(made, "fit") else copy.deepcopy(made)
    left_open = [
        name
        for name, value in made.get_params(deep=True).items()
        if value is None and name.rpartition("__")[2] == "random_state"
    ]
    return made.set_params(**dict.fromkeys(left_open, recipe.seed))
