"""The rows that estimators are fitted on, and how much each counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import has_fit_parameter

from modelmill.errors import InvalidRequest
from modelmill.weighting import Weighting


@dataclass(frozen=True)
class Rows:
    """n labelled rows."""

    inputs: pd.DataFrame
    """[n, inputs]"""
    label: np.ndarray
    """[n], or [n, labels] where there are several."""
    weighting: Weighting = Weighting()  # noqa: RUF009  it is frozen
    weight: np.ndarray | None = None
    """[n] values of the weighting's column, if it has one."""

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, numbers: np.ndarray) -> Rows:
        """The rows of these numbers, in their order."""
        weight = None if self.weight is None else self.weight[numbers]
        return Rows(self.inputs.iloc[numbers], self.label[numbers], self.weighting, weight)

    def fit(self, estimator: Any) -> Any:
        """Fit `estimator` on all of them, and return it.

        Raises:
            InvalidRequest: where the rows have weights and it takes none, or classes have and it knows no classes;
                whatever fitting raises is passed on.
        """
        if not self.weighting:
            return estimator.fit(self.inputs, self.label)
        if self.weighting.classes and is_regressor(estimator):
            raise InvalidRequest(
                "class_weight weighs the rows of a class, and a regressor knows no classes; name a column of weights"
                " as sample_weight instead"
            )
        return estimator.fit(self.inputs, self.label, **{_parameter(estimator): self.weights()})

    def weights(self) -> np.ndarray:
        """[n] what each row counts, by its column times by its class.

        Raises:
            InvalidRequest: for a weight that is no number of at least 0, and for a class that no row has.
        """
        weights = np.ones(len(self)) if self.weight is None else self.weight.astype(np.float64)
        if (wrong := ~(weights >= 0) | np.isinf(weights)).any():  # NaN is not
            raise InvalidRequest(
                f"sample_weight {self.weighting.column!r} is {weights[wrong][0]} in {wrong.sum()} of {len(self)} rows;"
                " expected a number of at least 0"
            )
        if self.weighting.classes:
            weights = weights * self._class_weights()
        return weights

    def _class_weights(self) -> np.ndarray:
        classes = self.weighting.classes
        if isinstance(classes, str):
            balanced: np.ndarray = compute_sample_weight(classes, self.label)
            return balanced
        present = np.unique(self.label).tolist()
        if unknown := [name for name in classes if name not in present]:
            raise InvalidRequest(f"class_weight names {unknown[0]!r}, which no row has; classes: {present}")
        weights: np.ndarray = np.array([classes.get(name, 1.0) for name in self.label.reshape(-1).tolist()])
        product: np.ndarray = weights.reshape(len(self), -1).prod(axis=1)
        return product


def _parameter(estimator: Any) -> str:
    """The parameter of its `fit` that takes weights: of a pipeline, that of its last step."""
    prefix, last = "", estimator
    while isinstance(last, Pipeline):
        name, last = last.steps[-1]
        prefix += f"{name}__"
    if not has_fit_parameter(last, "sample_weight"):
        raise InvalidRequest(
            f"estimator {type(last).__name__} takes no weights of rows; leave out sample_weight and class_weight"
        )
    return f"{prefix}sample_weight"
