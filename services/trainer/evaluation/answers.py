"""What a model says of some rows, asked for once; every metric, segment, interval and figure is computed from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if

from modelmill.errors import InvalidRequest
from modelmill.packages.estimator_serving import of_each_label

Task = Literal["classification", "regression"]
ARGMAX_CLASSIFIERS = frozenset(
    (
        "DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "GradientBoostingClassifier",
        "HistGradientBoostingClassifier", "LGBMClassifier", "LogisticRegression", "RandomForestClassifier",
        "XGBClassifier",
    )
)  # fmt: skip
"""Classifiers whose labels are those of the greatest probability: they need not be asked twice."""
PROBED_ROWS = 50
"""Rows whose labels are asked for nevertheless, to see that this is so."""
UNSURE_GAP = 1e-6
"""Labels are asked for wherever the two greatest probabilities are nearer to each other than this."""


def task_of(estimator: Any) -> Task:
    """What `estimator` is for.

    Raises:
        InvalidRequest: for anything but a classifier or a regressor.
    """
    if is_classifier(estimator):
        return "classification"
    if is_regressor(estimator):
        return "regression"
    raise InvalidRequest(f"estimator {type(estimator).__name__} is neither a classifier nor a regressor")


@dataclass(frozen=True)
class Output:
    """What a model says about one label of n rows."""

    predicted: np.ndarray
    """[n] labels, or numbers of a regression."""
    classes: np.ndarray
    """[classes] in the order of the probabilities; empty for a regression."""
    probabilities: np.ndarray | None = None
    """[n, classes], of a classifier that gives them."""
    decisions: np.ndarray | None = None
    """[n] for two classes, otherwise [n, classes]: decision values of a classifier without probabilities."""

    def rows(self, chosen: np.ndarray) -> Output:
        """The same about some rows: a mask, or row numbers."""
        return replace(
            self,
            predicted=self.predicted[chosen],
            probabilities=None if self.probabilities is None else self.probabilities[chosen],
            decisions=None if self.decisions is None else self.decisions[chosen],
        )


@dataclass(frozen=True)
class Answers:
    """What a model says of n rows."""

    task: Task
    outputs: tuple[Output, ...]
    """One a label."""

    def __len__(self) -> int:
        return len(self.outputs[0].predicted)

    @property
    def predicted(self) -> np.ndarray:
        """[n], or [n, outputs] where there are several."""
        if len(self.outputs) == 1:
            return self.outputs[0].predicted
        return np.column_stack([output.predicted for output in self.outputs])

    def rows(self, chosen: np.ndarray) -> Answers:
        """What it says of some of the rows: a mask, or row numbers."""
        return replace(self, outputs=tuple(output.rows(chosen) for output in self.outputs))

    @classmethod
    def of(cls, estimator: Any, rows: pd.DataFrame) -> Answers:
        """Ask a fitted estimator, or a packaged model, about `rows`.

        Raises:
            InvalidRequest: for what is neither a classifier nor a regressor.
        """
        task = task_of(estimator)
        if task == "regression":
            numbers = np.asarray(estimator.predict(rows), np.float64)
            columns = numbers.reshape(len(rows), -1).T
            return cls(task, tuple(Output(column, np.empty(0)) for column in columns))
        labels, probabilities = _labels(estimator, rows)
        decisions = None
        if probabilities is None and hasattr(estimator, "decision_function") and labels.ndim == 1:
            decisions = np.asarray(estimator.decision_function(rows))
        if labels.ndim == 1:
            only = None if probabilities is None else probabilities[0]
            return cls(task, (Output(labels, np.asarray(estimator.classes_), only, decisions),))
        given = repeat(None) if probabilities is None else probabilities
        outputs = zip(labels.T, estimator.classes_, given, strict=False)
        return cls(task, tuple(Output(column, np.asarray(classes), own) for column, classes, own in outputs))


def label_columns(label: np.ndarray) -> list[np.ndarray]:
    """The columns of [n] or [n, outputs] true labels, in the order of `Answers.outputs`."""
    return [label] if label.ndim == 1 else list(label.T)


class StoredAnswers(BaseEstimator):  # type: ignore[misc]
    """An estimator whose rows are numbers of rows that were answered before."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.classes_ = output.classes

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if len(self.classes_) else "regressor"
        return tags

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """[n] labels, or numbers of a regression."""
        found: np.ndarray = self.output.predicted[rows]
        return found

    @available_if(lambda self: self.output.probabilities is not None)  # type: ignore[untyped-decorator]
    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """[n, classes] probabilities."""
        assert self.output.probabilities is not None
        found: np.ndarray = self.output.probabilities[rows]
        return found

    @available_if(lambda self: self.output.decisions is not None)  # type: ignore[untyped-decorator]
    def decision_function(self, rows: np.ndarray) -> np.ndarray:
        """[n] or [n, classes] decision values."""
        assert self.output.decisions is not None
        found: np.ndarray = self.output.decisions[rows]
        return found


def _labels(estimator: Any, rows: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """[n] or [n, outputs] labels, and [n, classes] probabilities an output if there are any."""
    if hasattr(estimator, "labels_and_probabilities"):  # a graph gives both at once
        labels, given = estimator.labels_and_probabilities(rows)
    else:
        given = estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else None
        labels = None if given is None else _by_probability(estimator, rows, given)
        if labels is None:
            labels = estimator.predict(rows)
    labels = np.asarray(labels)
    if labels.ndim > 1 and not isinstance(estimator.classes_, list):
        raise InvalidRequest(
            f"estimator {type(estimator).__name__} does not tell the classes of its labels apart; wrap it in"
            " sklearn.multioutput.MultiOutputClassifier"
        )
    if given is None:
        return labels, None
    return labels, of_each_label(given) if labels.ndim > 1 else [np.asarray(given)]


def _by_probability(estimator: Any, rows: pd.DataFrame, probabilities: Any) -> np.ndarray | None:
    """[n] labels from [n, classes] probabilities, where the estimator is known to make them so."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    if type(last).__name__ not in ARGMAX_CLASSIFIERS or isinstance(probabilities, list) or probabilities.shape[1] < 2:
        return None
    labels: np.ndarray = np.asarray(estimator.classes_)[probabilities.argmax(axis=1)]
    if probabilities.shape[1] == 2:
        gap = np.abs(probabilities[:, 0] - probabilities[:, 1])
    else:
        greatest = np.partition(probabilities, -2, axis=1)
        gap = greatest[:, -1] - greatest[:, -2]
    unsure = ~(gap > UNSURE_GAP)  # NaN is unsure
    asked = unsure.copy()
    asked[:PROBED_ROWS] = True
    told = estimator.predict(rows[asked])
    if (told != labels[asked])[~unsure[asked]].any():
        return None
    labels[asked] = told
    return labels
