"""How good an estimator is on the held-out rows: scikit-learn's scorers, of which greater is always better."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_regressor
from sklearn.metrics import check_scoring, get_scorer_names

from modelmill.errors import InvalidRequest, did_you_mean

Task = Literal["classification", "regression"]
ALSO: dict[Task, dict[str, tuple[str, ...]]] = {
    "classification": {
        "accuracy": ("predict",),
        "roc_auc": ("predict_proba", "decision_function"),
        "neg_log_loss": ("predict_proba",),
    },
    "regression": {
        "r2": ("predict",),
        "neg_mean_absolute_error": ("predict",),
        "neg_root_mean_squared_error": ("predict",),
    },
}
"""Scorers that a model of a task gets beside its own metric, each with the methods of which it needs one."""


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


def require_metric(metric: str) -> None:
    """Refuse a metric that no scorer of scikit-learn is named.

    Raises:
        InvalidRequest: with the nearest names.
    """
    if metric not in get_scorer_names():
        raise InvalidRequest(
            f"metric {metric!r} is not a scorer of scikit-learn{did_you_mean(metric, get_scorer_names())}",
            metric=metric,
        )


def evaluate(estimator: Any, rows: pd.DataFrame, label: np.ndarray, metric: str) -> dict[str, float]:
    """Scorer to its value for `estimator` on the labelled `rows`: `metric` first, then those of its task that apply.

    Raises:
        InvalidRequest: where `metric` does not exist, or cannot be computed for this estimator and these rows.
    """
    require_metric(metric)
    also = (name for name, methods in ALSO[task_of(estimator)].items() if any(hasattr(estimator, m) for m in methods))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a scorer that does not apply says so by NaN or an error, handled below
        try:
            scorer = check_scoring(scoring=list(dict.fromkeys([metric, *also])), raise_exc=False)
            found = scorer(estimator, rows, label)
        except AttributeError as error:
            raise InvalidRequest(f"metric {metric!r} cannot be computed: {error}", metric=metric) from None
    scores = {name: float(score) for name, score in found.items() if _finite(score)}
    if metric not in scores:
        got = found[metric]
        reason = got.strip().splitlines()[-1] if isinstance(got, str) else f"it is {got}"
        raise InvalidRequest(
            f"metric {metric!r} cannot be computed for {type(estimator).__name__} on {len(label)} held-out rows with"
            f" {len(np.unique(label))} different labels: {reason}",
            metric=metric,
        )
    return scores


def _finite(score: Any) -> bool:
    """Whether it is a score; a scorer that raised left its traceback instead, a text."""
    return not isinstance(score, str) and math.isfinite(score)
