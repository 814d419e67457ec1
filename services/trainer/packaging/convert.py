"""From a fitted estimator to an ONNX graph that gives the same answers, proved on the held-out rows.

Tried in this order, until one is good: one tensor of all inputs (`matrix`, numbers only) before a tensor an input
(`columns`), and single precision, which is faster, before double.

A graph is good when on every held-out row its labels equal the estimator's, and its probabilities or numbers are within
the tolerance. Where no graph is good, one in single precision still is that differs on at most the tolerated share of
the rows, all of them rows on which the estimator itself gives that other answer when its inputs move by one unit of
single precision: they lie on the edge of a decision.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.ensemble import VotingClassifier

from modelmill.errors import InvalidRequest
from modelmill.package import MATRIX, Input, Layout, Parity, Precision
from modelmill.sessions import graph_session
from services.trainer.evaluation.answers import Answers
from services.trainer.packaging import lightgbm
from services.trainer.packaging.graph import Graph
from services.trainer.packaging.parity import OwnAnswers, Tolerance


class NoGraph(Exception):
    """No graph answers as the estimator does; the text says why not, for each that was tried."""


@dataclass(frozen=True)
class Converted:
    """A graph, how to feed it, and what it answers."""

    content: bytes
    graph: Graph
    layout: Layout
    tensor_dtype: Precision
    parity: Parity


def convert(
    estimator: Any, inputs: Sequence[Input], rows: pd.DataFrame, own: OwnAnswers, tolerance: Tolerance
) -> Converted:
    """The graph of the fitted `estimator`, checked on the held-out `rows`, for which it answers `own`.

    Raises:
        NoGraph: where there is none.
    """
    if own.labels is not None and own.labels.shape[1] > 1:
        raise NoGraph("it predicts classes of several labels, whose graphs give them in different forms")
    reasons: dict[str, list[str]] = {}
    nearly = None
    for layout, precision in _candidates(inputs):
        try:
            content = _graph(estimator, inputs, layout, precision)
            graph = Graph(graph_session(content), list(rows.columns), layout, precision)
            outputs = graph.run(rows)
            differing = own.differing(outputs, tolerance)
        except Exception as error:  # neither skl2onnx's nor ONNX Runtime's errors have a common root
            reasons.setdefault(_reason(error), []).append(f"{layout} {precision}")
            continue
        few = precision == "float32" and differing.sum() <= max(1, tolerance.edge_share * len(rows))
        if not differing.any():
            return Converted(content, graph, layout, precision, own.parity(outputs))
        reasons[_difference(own, outputs, differing)] = [f"{layout} {precision}"]
        if few and nearly is None and tolerance.edge_share:
            parity = own.parity(outputs, int(differing.sum()))
            nearly = Converted(content, graph, layout, precision, parity), differing
    if nearly and _on_edge(estimator, nearly[0].graph, rows[nearly[1]], tolerance):
        return nearly[0]
    raise NoGraph(f"{_listed(reasons)}{_too_fine(rows)}")


def _difference(own: OwnAnswers, outputs: list[np.ndarray], differing: np.ndarray) -> str:
    most = own.parity(outputs).max_relative_difference
    return f"it answers {differing.sum()} of {len(differing)} held-out rows otherwise, by at most {most:.3g}"


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
    with warnings.catch_warnings(), _without_flattening(estimator):
        warnings.simplefilter("ignore")  # theirs, about each other's versions
        model = convert_sklearn(
            estimator,
            initial_types=types,
            options={"zipmap": False} if has_probabilities else None,
            target_opset=lightgbm.opset(estimator),
        )
    if not has_probabilities:
        del model.graph.output[1:]  # scores, which nobody may take for probabilities
    if layout == "columns":
        _rename_inputs(model.graph, [item.name for item in inputs])
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def _without_flattening(estimator: Any) -> Iterator[None]:
    """Let voting classifiers be converted, which skl2onnx refuses for how they transform, whatever they predict."""
    found = [one for one in (estimator, *estimator.get_params().values()) if isinstance(one, VotingClassifier)]
    flattening = [one for one in found if one.flatten_transform]
    for one in flattening:
        one.flatten_transform = False
    try:
        yield
    finally:
        for one in flattening:
            one.flatten_transform = True


def _rename_inputs(graph: Any, names: Sequence[str]) -> None:
    """Give the inputs of a graph their own names again, of which skl2onnx keeps only letters and digits."""
    renamed = {item.name: name for item, name in zip(graph.input, names, strict=True)}
    for item in graph.input:
        item.name = renamed[item.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _on_edge(estimator: Any, graph: Graph, rows: pd.DataFrame, tolerance: Tolerance) -> bool:
    """Whether on each of `rows` the estimator gives the graph's answer for inputs one unit of float32 away."""
    outputs = graph.run(rows)
    unexplained = np.ones(len(rows), np.bool_)
    for direction in (-np.inf, None, np.inf):
        moved = rows.copy()
        for name in rows.columns:
            if rows[name].dtype != object:
                single = rows[name].to_numpy(np.float32)
                towards = single if direction is None else np.float32(direction)
                moved[name] = np.nextafter(single, towards).astype(np.float64)
        unexplained &= OwnAnswers.of(Answers.of(estimator, moved)).differing(outputs, tolerance)
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


def _listed(reasons: Mapping[str, Sequence[str]]) -> str:
    """All reasons in one sentence, each with the candidates that it goes for unless it is that of all."""
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{reason} ({', '.join(candidates)})" for reason, candidates in reasons.items())


def _reason(error: Exception) -> str:
    """Why a candidate failed: the first line of its error, without what only the libraries' authors need."""
    if isinstance(error, InvalidRequest):
        return error.detail
    if isinstance(error, MissingShapeCalculator | MissingConverter):
        kind = re.search(r"<class '(?:[\w.]+\.)?(\w+)'>", str(error))
        return f"skl2onnx has no converter for {kind[1] if kind else 'it'}"
    lines = str(error).strip().splitlines()
    first = re.sub(
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\. You may raise an issue at \S+", "", lines[0] if lines else ""
    )
    return f"{type(error).__name__}: {first[:200]}"
