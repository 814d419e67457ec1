"""From a fitted estimator to an ONNX graph that gives the same answers, proved on the held-out rows.

Tried in this order, until one is good: one tensor of all inputs (`matrix`, numbers only) before a tensor an input
(`columns`), and single precision, which is faster, before double.

A graph is good when on every held-out row its labels equal the estimator's, its probabilities are within 1e-5 of the
estimator's, and its numbers within 1e-4 of the estimator's, relative to the larger of the number and the spread of all.
Where no graph is good, one in single precision still is that differs on at most 1 row in 1,000 (or on 1), all of them
rows on which the estimator itself gives that other answer when its inputs move by one unit of single precision: they
lie on the edge of a decision.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

from modelmill.errors import InvalidRequest
from modelmill.package import Input
from services.trainer.evaluation.answers import task_of
from services.trainer.packaging.graph import MATRIX, Graph, Layout

PROBABILITY_TOLERANCE = 1e-5
NUMBER_TOLERANCE = 1e-4
EDGE_SHARE = 1e-3
"""Share of the rows that may differ where they lie on the edge of a decision."""
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Converted:
    """A graph and how to feed it."""

    graph: bytes
    layout: Layout
    tensor_dtype: Precision
    edge_rows: int
    """Held-out rows that it answers otherwise than the estimator, each on the edge of a decision."""

    def __str__(self) -> str:
        edge = f", {self.edge_rows} rows on the edge of a decision differ" if self.edge_rows else ""
        return f"{self.layout}, {self.tensor_dtype}{edge}"


def convert(estimator: Any, inputs: Sequence[Input], rows: pd.DataFrame) -> Converted:
    """The graph of the fitted `estimator`, checked on the held-out `rows`.

    Raises:
        InvalidRequest: where there is none, with the reason for each that was tried.
    """
    own = _Answers.of(estimator, rows)
    reasons: dict[str, list[str]] = {}
    nearly = None
    for layout, precision in _candidates(inputs):
        try:
            content = _graph(estimator, inputs, layout, precision)
            differing = own.differing(Graph(content, list(rows.columns), layout, precision).run(rows))
        except Exception as error:  # neither skl2onnx's nor ONNX Runtime's errors have a common root
            reasons.setdefault(_first_line(error), []).append(f"{layout} {precision}")
            continue
        if not differing.any():
            return Converted(content, layout, precision, 0)
        reasons[f"it answers {differing.sum()} of {len(rows)} held-out rows otherwise"] = [f"{layout} {precision}"]
        if precision == "float32" and nearly is None and differing.sum() <= max(1, EDGE_SHARE * len(rows)):
            nearly = Converted(content, layout, precision, int(differing.sum())), differing
    if nearly and _on_edge(estimator, nearly[0], rows[nearly[1]]):
        return nearly[0]
    tried = "; ".join(f"{reason} ({', '.join(candidates)})" for reason, candidates in reasons.items())
    raise InvalidRequest(
        f"estimator {type(estimator).__name__} has no ONNX graph that answers as it does: {tried}{_too_fine(rows)}"
    )


@dataclass(frozen=True)
class _Answers:
    """What an estimator answers for n rows: labels and maybe probabilities, or numbers."""

    labels: np.ndarray | None
    numbers: np.ndarray
    """[n, classes] probabilities, or [n, 1] numbers of a regression, or [n, 0]."""
    tolerance: np.ndarray
    """[n, 1]: how far a graph's numbers may be off."""

    @classmethod
    def of(cls, estimator: Any, rows: pd.DataFrame) -> _Answers:
        answer = np.asarray(estimator.predict(rows))
        if task_of(estimator) == "regression":
            if answer.reshape(len(rows), -1).shape[1] != 1:
                raise InvalidRequest(f"estimator {type(estimator).__name__} predicts several numbers; expected one")
            numbers = answer.reshape(-1, 1).astype(np.float64)
            return cls(None, numbers, NUMBER_TOLERANCE * np.maximum(np.abs(numbers), numbers.std()))
        has_probabilities = hasattr(estimator, "predict_proba")
        numbers = estimator.predict_proba(rows) if has_probabilities else np.empty((len(rows), 0))
        return cls(answer, numbers, np.full((len(rows), 1), PROBABILITY_TOLERANCE))

    def differing(self, outputs: list[np.ndarray]) -> np.ndarray:
        """Which rows a graph with these outputs answers otherwise."""
        if self.labels is None:
            return self._off(outputs[0])
        wrong: np.ndarray = outputs[0].astype(self.labels.dtype) != self.labels
        return wrong | self._off(outputs[1]) if self.numbers.shape[1] else wrong

    def _off(self, numbers: np.ndarray) -> np.ndarray:
        close = np.abs(numbers.reshape(self.numbers.shape) - self.numbers) <= self.tolerance
        off: np.ndarray = ~close.all(axis=1)  # NaN is never close
        return off


def _candidates(inputs: Sequence[Input]) -> Iterator[tuple[Layout, Precision]]:
    layouts: tuple[Layout, ...] = ("columns",) if any(i.dtype == "str" for i in inputs) else ("matrix", "columns")
    for layout in layouts:
        yield layout, "float32"
        yield layout, "float64"


def _graph(estimator: Any, inputs: Sequence[Input], layout: Layout, precision: Precision) -> bytes:
    number = FloatTensorType if precision == "float32" else DoubleTensorType
    if layout == "matrix":
        types = [(MATRIX, number([None, len(inputs)]))]
    else:
        types = [(i.name, (StringTensorType if i.dtype == "str" else number)([None, 1])) for i in inputs]
    has_probabilities = hasattr(estimator, "predict_proba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about each other's versions
        model = convert_sklearn(
            estimator, initial_types=types, options={"zipmap": False} if has_probabilities else None
        )
    if not has_probabilities:
        del model.graph.output[1:]  # scores, which nobody may take for probabilities
    if layout == "columns":
        _rename_inputs(model.graph, [item.name for item in inputs])
    content: bytes = model.SerializeToString()
    return content


def _rename_inputs(graph: Any, names: Sequence[str]) -> None:
    """Give the inputs of a graph their own names again, of which skl2onnx keeps only letters and digits."""
    renamed = {item.name: name for item, name in zip(graph.input, names, strict=True)}
    for item in graph.input:
        item.name = renamed[item.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _on_edge(estimator: Any, converted: Converted, rows: pd.DataFrame) -> bool:
    """Whether on each of `rows` the estimator gives the graph's answer for inputs one unit of float32 away."""
    outputs = Graph(converted.graph, list(rows.columns), converted.layout, converted.tensor_dtype).run(rows)
    unexplained = np.ones(len(rows), np.bool_)
    for direction in (-np.inf, None, np.inf):
        moved = rows.copy()
        for name in rows.columns:
            if rows[name].dtype != object:
                single = rows[name].to_numpy(np.float32)
                towards = single if direction is None else np.float32(direction)
                moved[name] = np.nextafter(single, towards).astype(np.float64)
        unexplained &= _Answers.of(estimator, moved).differing(outputs)
    return not unexplained.any()


def _too_fine(rows: pd.DataFrame) -> str:
    """The end of a sentence that names inputs whose values single precision cannot tell apart."""
    fine = [
        name
        for name in rows.columns
        if rows[name].dtype != object and rows[name].astype(np.float32).nunique() < 0.99 * rows[name].nunique()
    ]
    if not fine:
        return ""
    return f"; single precision cannot tell all values of {', '.join(map(repr, fine))} apart: scale or shift them"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
