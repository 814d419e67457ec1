"""What a trained model is packed with: its signature from the definitions, its graph, its estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import skops.io

from modelmill.declarations import Model
from modelmill.definitions import Definitions, FeatureRef
from modelmill.model_features import ComputedRef, model_features
from modelmill.package import ESTIMATOR, GRAPH, Input, Manifest
from services.trainer.evaluation.answers import task_of
from services.trainer.packaging.convert import Converted


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
        has_default=ref.name in recipe.defaults,
        default=recipe.defaults.get(ref.name),
        max_age=definitions.source(ref.source).max_age,
    )


def _computed(ref: ComputedRef) -> Input:
    column, needs = ref.feature.column, {need: needed.name for need, needed in ref.needs.items()}
    return Input(column.name, column.dtype, column.nullable, needs=needs, version=ref.feature.version)


def manifest(
    recipe: Model,
    definitions: str,
    run: str,
    inputs: Inputs,
    estimator: Any,
    converted: Converted,
    metrics: dict[str, float],
    held_out: pd.DataFrame,
) -> Manifest:
    """The manifest of a fitted estimator; `definitions` is the fingerprint of those that it was trained with."""
    task = task_of(estimator)
    return Manifest(
        model=recipe.name,
        run=run,
        task=task,
        entities={entity.name: entity.key for entity in recipe.entities},
        inputs=inputs.fed,
        auxiliary=inputs.auxiliary,
        definitions=definitions,
        layout=converted.layout,
        tensor_dtype=converted.tensor_dtype,
        classes=estimator.classes_.tolist() if task == "classification" else [],
        label=recipe.label,
        metrics=metrics,
        example=example(inputs.fed, held_out),
    )


def files(estimator: Any, converted: Converted) -> dict[str, bytes]:
    """The package's files beside its manifest."""
    return {GRAPH: converted.graph, ESTIMATOR: skops.io.dumps(estimator)}


def example(inputs: list[Input], rows: pd.DataFrame) -> dict[str, Any]:
    """One of `rows` as the values of a request: the first that lacks nothing, otherwise the first."""
    numbers = rows.select_dtypes("number")
    complete = np.flatnonzero(numbers.notna().all(axis=1))
    row = rows.iloc[complete[0] if len(complete) else 0]
    return {item.name: _value(item, row[item.name]) for item in inputs}


def _value(item: Input, value: Any) -> float | int | bool | str | None:
    if item.dtype == "str":
        return None if item.nullable and value == "" else str(value)
    if np.isnan(value):
        return None
    number: float | int | bool = {"float": float, "int": int, "bool": bool}[item.dtype](value)
    return number
