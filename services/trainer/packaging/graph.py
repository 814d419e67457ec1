"""A package that answers as an estimator of scikit-learn does, and how far its answers are from the estimator's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from modelmill.errors import InvalidRequest
from modelmill.packages.package import MATRIX, Layout, Manifest, Parity
from modelmill.packages.sessions import Session, open_package
from modelmill.state.connections import Redis
from services.trainer.evaluation.answers import Answers

ROWS_PER_RUN = 4000
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
            self.session.run(self.outputs, {name: tensor[at : at + ROWS_PER_RUN] for name, tensor in tensors.items()})
            for at in range(0, max(1, len(rows)), ROWS_PER_RUN)
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


# --- how far the answers of a package are from the estimator's own, and how far they may be

NEGLIGIBLE = 1e-6
"""Of a number itself, what its difference is at least measured relative to: where all answers are nearly the same."""


@dataclass(frozen=True)
class Tolerance:
    """How far a graph's answers may be off for it to be served instead of the estimator."""

    probability: float = 1e-5
    number: float = 1e-4
    """Relative to the spread of the answers to the held-out rows, or to how far a number is from their mean."""

    @classmethod
    def strict(cls, difference: float) -> Tolerance:
        """No answer off by more than that."""
        return cls(difference, difference)


@dataclass(frozen=True)
class OwnAnswers:
    """What is compared of an estimator's answers for n rows: labels and maybe probabilities, or numbers."""

    labels: np.ndarray | None
    """[n, labels]; None for a regression."""
    numbers: np.ndarray
    """[n, classes] probabilities, those of several labels side by side, or [n, labels] numbers, or [n, 0]."""
    scale: np.ndarray
    """What a difference is measured relative to, for each of the numbers."""

    @classmethod
    def of(cls, answers: Answers, among: np.ndarray | None = None) -> OwnAnswers:
        """What is compared of an estimator's answers; `among` has the spread that counts, if not its own."""
        predicted = np.column_stack([output.predicted for output in answers.outputs])
        if answers.task == "regression":
            numbers = predicted.astype(np.float64)
            among = numbers if among is None else among
            apart = np.maximum(np.abs(numbers - among.mean(axis=0)), among.std(axis=0))
            return cls(None, numbers, np.maximum(apart, NEGLIGIBLE * np.abs(numbers)))
        given = [output.probabilities for output in answers.outputs if output.probabilities is not None]
        numbers = np.hstack(given) if given else np.empty((len(answers), 0))
        return cls(predicted, numbers, np.ones(numbers.shape))

    def followed_by(self, more: OwnAnswers) -> OwnAnswers:
        """Both, row after row."""
        labels = None if self.labels is None or more.labels is None else np.concatenate([self.labels, more.labels])
        numbers = np.concatenate([self.numbers, more.numbers])
        return OwnAnswers(labels, numbers, np.concatenate([self.scale, more.scale]))

    def rows(self, chosen: np.ndarray | slice) -> OwnAnswers:
        """Those to some of the rows."""
        labels = None if self.labels is None else self.labels[chosen]
        return OwnAnswers(labels, self.numbers[chosen], self.scale[chosen])

    def differing(self, outputs: list[np.ndarray], tolerance: Tolerance) -> np.ndarray:
        """[n] whether a package with these outputs answers a row otherwise than within `tolerance`.

        Raises:
            InvalidRequest: where it does not answer with a label or number for each of a row.
        """
        shape, expected = outputs[0].shape, (self.numbers if self.labels is None else self.labels).shape
        if shape != expected and not (expected[1] == 1 and shape == expected[:1]):
            raise InvalidRequest(
                f"its answers for {expected[0]} rows are of the shape {list(shape)}; expected {expected[1]} a row"
            )
        found: np.ndarray = np.logical_or(self.apart(outputs, tolerance), self._other_labels(outputs))
        return found

    def apart(self, outputs: list[np.ndarray], tolerance: Tolerance) -> np.ndarray:
        """[n] whether a probability or number of a row is further off than `tolerance` allows."""
        allowed = (tolerance.number if self.labels is None else tolerance.probability) * self.scale
        return np.asarray(np.any(~(self._differences(outputs) <= allowed), axis=1))  # NaN always is

    def tied(self, tolerance: Tolerance) -> np.ndarray:
        """[n] whether two classes are as probable as each other, within `tolerance`, so that the label says little."""
        if self.labels is None or self.numbers.shape[1] < 2:
            return np.zeros(len(self.numbers), np.bool_)
        greatest = np.partition(self.numbers, -2, axis=1)
        near: np.ndarray = greatest[:, -1] - greatest[:, -2] <= 2 * tolerance.probability
        return near

    def parity(self, outputs: list[np.ndarray]) -> Parity:
        """The figures for a package with these outputs."""
        differences = self._differences(outputs)
        with np.errstate(invalid="ignore"):  # 0 / 0, where all numbers are 0
            relative = np.where(differences > 0, differences / self.scale, 0)
        return Parity(
            rows=len(self.numbers),
            labels_differing=float(self._other_labels(outputs).mean()),
            max_difference=float(differences.max(initial=0)),
            max_relative_difference=float(relative.max(initial=0)),
        )

    def _differences(self, outputs: list[np.ndarray]) -> np.ndarray:
        if not self.numbers.shape[1]:
            return np.zeros(self.numbers.shape)
        numbers = outputs[0 if self.labels is None else 1]
        found: np.ndarray = np.abs(numbers.reshape(self.numbers.shape) - self.numbers)
        return found

    def _other_labels(self, outputs: list[np.ndarray]) -> np.ndarray:
        if self.labels is None:
            return np.zeros(len(self.numbers), np.bool_)
        other = outputs[0].astype(self.labels.dtype).reshape(self.labels.shape) != self.labels
        return np.asarray(np.any(other, axis=1))
