"""From a fitted estimator to a package: an ONNX graph where one answers alike, else the estimator, and the manifest."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from threadpoolctl import threadpool_limits

from modelmill.columns.types import TYPES
from modelmill.declare.declarations import Model
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef, model_features
from modelmill.declare.trusted_types import FULL_NAME
from modelmill.errors import InvalidRequest, UntrustedTypes, sentence
from modelmill.packages.estimator_serving import EstimatorSession, foreign_types, load_estimator
from modelmill.packages.package import (
    ESTIMATOR,
    GRAPH,
    MAX_VALUES,
    Input,
    Layout,
    Manifest,
    Parity,
    Precision,
    Range,
    Runtime,
    Tensor,
    required_words,
)
from modelmill.packages.sessions import described
from modelmill.state.runs import Run
from services.trainer.evaluation.answers import Answers, task_of
from services.trainer.packaging.convert import Converted, Graphs, NoGraph, convert
from services.trainer.packaging.graph import Graph, OwnAnswers, Tolerance
from services.trainer.packaging.probes import prove

log = logging.getLogger(__name__)

DEFAULT = Tolerance()
NAMES_NEEDED = "its functions and classes need names at the top of the definitions file or of a module"


@dataclass(frozen=True)
class Packed:
    """What serves a fitted estimator, checked on the held-out rows."""

    runtime: Runtime
    runtime_reason: str
    """Why it is not a graph."""
    graph: Graph
    """Answers as the predictor will."""
    layout: Layout
    tensor_dtype: Precision
    parity: Parity
    files: Mapping[str, bytes]
    trusted: Sequence[str] = ()
    """Types beside the reviewed ones that the estimator is made of."""
    required: Sequence[str] = ()
    """Inputs that may be missing by their declaration, and that the estimator cannot do without."""

    @property
    def tensors(self) -> list[Tensor]:
        """What goes in."""
        return described(self.graph.session.get_inputs())

    @property
    def outputs(self) -> list[Tensor]:
        """What comes out."""
        return described(self.graph.session.get_outputs())

    @property
    def recorded(self) -> dict[str, Any]:
        """What its run says of it, field by field."""
        runtime = f"onnx {self.tensor_dtype}" if self.runtime == "onnx" else self.runtime
        parity = {name: float(value) for name, value in asdict(self.parity).items()}
        return {"runtime": runtime, "runtime_reason": self.runtime_reason, "parity": parity}


def pack(
    estimator: Any,
    inputs: Sequence[Input],
    rows: pd.DataFrame,
    answers: Answers,
    *,
    trusted: Collection[str] = (),
    tolerance: Tolerance = DEFAULT,
) -> Packed:
    """Pack the fitted `estimator` and check it on the held-out `rows`, of which it says `answers`.

    An estimator that has no graph within `tolerance` is served by scikit-learn, if it is made of reviewed types and of
    those in `trusted` alone.

    Raises:
        InvalidRequest: where it can be served neither way, saying why not.
    """
    own = OwnAnswers.of(answers)
    with Graphs(estimator, inputs) as graphs:  # which are made meanwhile
        with threadpool_limits(limits=1):  # for few rows, more threads only wait for each other
            proof = prove(estimator, inputs, rows, own)
        if proof.required:
            log.warning("%s: %s", type(estimator).__name__, required_words(proof.required))
        kept = _kept(estimator)
        try:
            packed = _converted(convert(estimator, inputs, proof, tolerance, graphs), kept)
        except NoGraph as error:
            packed = _estimator(estimator, kept, inputs, rows, trusted, tolerance, own, str(error))
    return replace(packed, required=proof.required)


def _can_be_found(name: str) -> bool:
    """Whether a type or function can be loaded by the name that skops knows, which nothing inside a function can."""
    module, _, own = name.rpartition(".")
    return FULL_NAME.fullmatch(name) is not None and hasattr(sys.modules.get(module), own)


def _kept(estimator: Any) -> bytes | Exception:
    """What skops makes of it, or why it cannot."""
    try:
        content: bytes = skops.io.dumps(estimator)
        return content
    except Exception as error:  # it may hold anything
        return error


def _converted(converted: Converted, kept: bytes | Exception) -> Packed:
    files = {GRAPH: converted.content}
    if isinstance(kept, bytes):
        files[ESTIMATOR] = kept
    else:  # its graph answers without
        log.warning("the package has no %s: %s: %s", ESTIMATOR, type(kept).__name__, kept)
    return Packed("onnx", "", converted.graph, converted.layout, converted.tensor_dtype, converted.parity, files)


def _estimator(
    estimator: Any,
    content: bytes | Exception,
    inputs: Sequence[Input],
    rows: pd.DataFrame,
    trusted: Collection[str],
    tolerance: Tolerance,
    own: OwnAnswers,
    reason: str,
) -> Packed:
    """What is loaded from the file again serves, so that it is known to load."""
    layout: Layout = "columns" if any(item.dtype == "str" for item in inputs) else "matrix"
    refused = f"estimator {type(estimator).__name__} has no ONNX graph that answers as it does: {reason}. scikit-learn"
    try:
        if isinstance(content, Exception):
            raise content
        labels = (own.numbers if own.labels is None else own.labels).shape[1]
        session = EstimatorSession(load_estimator(content, trusted), inputs, layout, labels)
    except UntrustedTypes as error:
        nameless = [name for name in error.fields["types"] if not _can_be_found(name)]
        if nameless:
            raise InvalidRequest(f"{refused} cannot serve {', '.join(nameless)} either: {NAMES_NEEDED}") from None
        raise InvalidRequest(f"{refused} could serve it, but {error.detail}", **error.fields) from None
    except Exception as error:  # whatever the attributes of an estimator raise
        reason = f"skops cannot keep it: {sentence(error)}"
        raise InvalidRequest(f"{refused} cannot serve it either, for {reason}; {NAMES_NEEDED}") from None
    graph = Graph(session, list(rows.columns), layout, "float64")
    outputs = graph.run(rows)
    if (differing := own.differing(outputs, tolerance)).any():
        raise InvalidRequest(
            f"{refused} cannot serve it either: loaded from its file it answers {differing.sum()} of {len(rows)}"
            " held-out rows otherwise"
        )
    log.warning("scikit-learn will serve %s, which takes longer: %s", type(estimator).__name__, reason)
    parity = own.parity(outputs)
    return Packed("skops", reason, graph, layout, "float64", parity, {ESTIMATOR: content}, foreign_types(content))


# --- what the manifest of a package says: the signature, from the definitions, and what came of the training


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
        return Range(missing=missing, values=[str(value) for value in counts.index[:MAX_VALUES]])
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
    number: float | int | bool = TYPES[item.dtype].python(value)
    return number
