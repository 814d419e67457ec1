"""What the manifest of a package says: the signature, from the definitions, and what came of the training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef, model_features
from modelmill.packages.package import MOST_VALUES, Input, Manifest, Range
from modelmill.state.runs import Run
from services.trainer.evaluation.answers import task_of
from services.trainer.packaging.packing import Packed


@dataclass(frozen=True)
class Inputs:
    """What a model takes."""

    fed: list[Input]
    """In the order of its columns: its features, then its request inputs."""
    auxiliary: list[Input]
    """What is read only to compute some of them."""

    @property
    def fields(self) -> list[str]:
        """What the feature store has to go on computing for the model: source and field, or tile group."""
        stored = [item for item in (*self.fed, *self.auxiliary) if item.entity]
        return list(dict.fromkeys(f"{item.source}.{item.tiles or item.field}" for item in stored))


def signature(definitions: Definitions, recipe: Model) -> Inputs:
    """The inputs of a model."""
    features = model_features(definitions, recipe)
    named = {ref.name: _stored(definitions, recipe, ref) for ref in features.stored}
    named |= {ref.feature.name: _computed(ref) for ref in features.computed}
    return Inputs(
        [named[name] for name in recipe.features]
        + [Input(c.name, c.dtype, c.nullable) for c in recipe.inputs.values()],
        [_stored(definitions, recipe, ref) for ref in features.auxiliary],
    )


def _stored(definitions: Definitions, recipe: Model, ref: FeatureRef) -> Input:
    return Input(
        name=ref.name,
        dtype=ref.column.dtype,
        nullable=ref.column.nullable,
        entity=ref.entity,
        field=ref.field,
        source=ref.source,
        tiles=definitions.tile_group(ref.aggregate).name if ref.aggregate else None,
        reading=ref.aggregate.reading if ref.aggregate else None,
        version=ref.field.partition("@")[2] or None,
        has_default=ref.name in recipe.defaults,
        default=recipe.defaults.get(ref.name),
        max_age=definitions.source(ref.source).max_age,
    )


def _computed(ref: ComputedRef) -> Input:
    column, needs = ref.feature.column, {need: needed.name for need, needed in ref.needs.items()}
    return Input(column.name, column.dtype, column.nullable, needs=needs, version=ref.feature.version)


def manifest(
    recipe: Model,
    run: Run,
    inputs: Inputs,
    estimator: Any,
    packed: Packed,
    *,
    fitted_on: pd.DataFrame,
    held_out: pd.DataFrame,
) -> Manifest:
    """The manifest of the estimator that `run` fitted."""
    task, shown = task_of(estimator), one_row(held_out)
    fed = [replace(item, nullable=item.nullable and item.name not in packed.required) for item in inputs.fed]
    return Manifest(
        model=recipe.name,
        run=run.id,
        task=task,
        entities={entity.name: entity.key for entity in recipe.entities},
        inputs=fed,
        required=list(packed.required),
        auxiliary=inputs.auxiliary,
        definitions=run.definitions,
        runtime=packed.runtime,
        runtime_reason=packed.runtime_reason,
        trusted=list(packed.trusted),
        parity=packed.parity,
        layout=packed.layout,
        tensor_dtype=packed.tensor_dtype,
        tensors=packed.tensors,
        outputs=packed.outputs,
        classes=_classes(estimator, len(recipe.labels)) if task == "classification" else [],
        labels=list(recipe.labels) if len(recipe.labels) > 1 else [],
        label=recipe.label,
        metrics=run.metrics,
        example=example(fed, shown),
        answer=[output.tolist() for output in packed.graph.run(shown)],
        ranges={item.name: value_range(fitted_on[item.name]) for item in inputs.fed},
        environment=run.packages,
    )


def _classes(estimator: Any, labels: int) -> list[Any]:
    """The classes of its label, or of each of several."""
    if labels == 1:
        own: list[Any] = np.asarray(estimator.classes_).tolist()
        return own
    return [np.asarray(classes).tolist() for classes in estimator.classes_]


def value_range(column: pd.Series) -> Range:
    """What a column of the rows that a model is fitted on holds; a missing text is the empty one."""
    if column.dtype == object:
        counts = column[column != ""].value_counts()
        missing = (len(column) - int(counts.sum())) / len(column)
        return Range(missing=missing, values=[str(value) for value in counts.index[:MOST_VALUES]])
    numbers = column.to_numpy(np.float64)
    there = numbers[~np.isnan(numbers)]
    if not len(there):
        return Range(missing=1.0)
    return Range(missing=(len(numbers) - len(there)) / len(numbers), low=float(there.min()), high=float(there.max()))


def one_row(rows: pd.DataFrame) -> pd.DataFrame:
    """The first of `rows` that lacks no number, otherwise the first."""
    complete = np.flatnonzero(rows.select_dtypes("number").notna().all(axis=1))
    return rows.iloc[[complete[0] if len(complete) else 0]]


def example(inputs: list[Input], row: pd.DataFrame) -> dict[str, Any]:
    """A frame of one row as the values of a request."""
    return {item.name: _value(item, row[item.name].iloc[0]) for item in inputs}


def _value(item: Input, value: Any) -> float | int | bool | str | None:
    if item.dtype == "str":
        return None if item.nullable and value == "" else str(value)
    if np.isnan(value):
        return None
    number: float | int | bool = {"float": float, "int": int, "bool": bool}[item.dtype](value)
    return number
