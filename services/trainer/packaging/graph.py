"""A package that answers as an estimator of scikit-learn does, so that the same scorers score it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from modelmill.packages.package import MATRIX, Layout, Manifest
from modelmill.packages.sessions import Session, open_package
from modelmill.state.connections import Redis

AT_ONCE = 4000
"""Rows that a session is given: what it computes of them fits into the processor's caches, which takes it less time."""


class Graph:
    """Runs a session on DataFrames, in one thread, as the predictor does."""

    def __init__(self, session: Session, inputs: Sequence[str], layout: Layout, tensor_dtype: str) -> None:
        self.session = session
        self.outputs = [output.name for output in session.get_outputs()]
        self.inputs = list(inputs)
        self.layout = layout
        self.dtype = np.dtype(tensor_dtype)

    def run(self, rows: pd.DataFrame) -> list[np.ndarray]:
        """The outputs for n rows, each with n entries."""
        tensors = self._tensors(rows[self.inputs])
        parts = [
            self.session.run(self.outputs, {name: tensor[at : at + AT_ONCE] for name, tensor in tensors.items()})
            for at in range(0, max(1, len(rows)), AT_ONCE)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def holds(self, rows: pd.DataFrame) -> np.ndarray:
        """[n] which rows hold no number that is too large for its tensors; a request with one is refused."""
        largest = np.finfo(self.dtype).max
        too_large = (rows.select_dtypes("number").abs() > largest).to_numpy()
        held: np.ndarray = ~too_large.any(axis=1)
        return held

    def answers(self, rows: pd.DataFrame) -> np.ndarray:
        """[n] for which rows all its numbers are finite, without which there is no answer."""
        numbers = [output for output in self.run(rows) if output.dtype.kind == "f"]
        if not numbers:
            return np.ones(len(rows), np.bool_)
        finite = np.isfinite(np.column_stack([output.reshape(len(rows), -1) for output in numbers]))
        found: np.ndarray = finite.all(axis=1)
        return found

    def _tensors(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        if self.layout == "matrix":
            return {MATRIX: rows.to_numpy(self.dtype)}
        return {
            name: (column if column.dtype == object else column.astype(self.dtype)).reshape(-1, 1)
            for name in self.inputs
            for column in [rows[name].to_numpy()]
        }


class GraphClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that answers by its package."""

    def __init__(self, graph: Graph, classes: Sequence[Any], several: bool = False) -> None:
        self.graph = graph
        self.classes = classes
        self.several = several
        self.classes_: Any = [np.asarray(own) for own in classes] if several else np.asarray(classes)

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """[n] labels, or [n, labels] where there are several."""
        return self._labels(self.graph.run(rows)[0])

    def _labels(self, output: np.ndarray) -> np.ndarray:
        labels: np.ndarray = output.astype(np.result_type(*self.classes_) if self.several else self.classes_.dtype)
        return labels

    def _probabilities(self, output: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """[n, classes]; of several labels a list of them, which stand side by side in `output`."""
        if not self.several:
            return output
        return np.split(output, np.cumsum([len(own) for own in self.classes_])[:-1], axis=1)

    def labels_and_probabilities(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray | list[np.ndarray] | None]:
        """What `predict` and, if there are any, `predict_proba` give, from one run of the graph."""
        labels, *probabilities = self.graph.run(rows)
        return self._labels(labels), self._probabilities(probabilities[0]) if probabilities else None

    @available_if(lambda self: len(self.graph.outputs) > 1)  # type: ignore[untyped-decorator]
    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray | list[np.ndarray]:
        """[n, classes] probabilities, or a list of them."""
        return self._probabilities(self.graph.run(rows)[1])


class GraphRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor that answers by its package."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """[n] numbers, or [n, labels] where there are several."""
        numbers = self.graph.run(rows)[0]
        return numbers.reshape(-1) if numbers.size == len(rows) else numbers


def packaged(redis: Redis, manifest: Manifest, content: bytes) -> GraphClassifier | GraphRegressor:
    """The model that a package holds, answering as it is served.

    Raises:
        UnknownName, DefinitionsError, UntrustedTypes: as `open_package` does.
    """
    session = open_package(redis, manifest, content)
    graph = Graph(session, [item.name for item in manifest.inputs], manifest.layout, manifest.tensor_dtype)
    if manifest.task == "regression":
        return GraphRegressor(graph)
    return GraphClassifier(graph, manifest.classes, bool(manifest.labels))
