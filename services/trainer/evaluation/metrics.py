"""How good answers are: scikit-learn's scorers and the user's functions, of which greater is always better.

Where a model has several labels, a metric is the mean of its values for each of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names

from modelmill.declare.metrics import Metric
from modelmill.errors import InvalidRequest, did_you_mean, printable
from services.trainer.evaluation.answers import Answers, Output, Task, truths

ALSO: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "roc_auc", "neg_log_loss"),
    "regression": ("r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"),
}
"""Scorers that a model of a task gets beside its own metrics, as far as they apply."""


def require_metrics(metrics: Sequence[Metric]) -> None:
    """Refuse a metric without a function that no scorer of scikit-learn is named.

    Raises:
        InvalidRequest: with the nearest names.
    """
    for metric in metrics:
        if metric.function is None and metric.name not in get_scorer_names():
            near = did_you_mean(metric.name, get_scorer_names())
            raise InvalidRequest(f"metric {metric.name!r} is not a scorer of scikit-learn{near}", metric=metric.name)


def scores(metrics: Sequence[Metric], answers: Answers, truth: np.ndarray) -> dict[str, float]:
    """Metric to its value: `metrics` first, then those of the task that apply.

    Args:
        truth: [n] or [n, outputs]

    Raises:
        InvalidRequest: where one of `metrics` cannot be computed for these answers.
    """
    found = {metric.name: score(metric, answers, truth) for metric in metrics}
    for also in ALSO[answers.task]:
        if also not in found:
            try:
                found[also] = score(Metric(also), answers, truth)
            except InvalidRequest:
                continue
    return found


def score(metric: Metric, answers: Answers, truth: np.ndarray) -> float:
    """The value of one metric; an error of the user's function comes as it is, with its traceback.

    Raises:
        InvalidRequest: where it cannot be computed for these answers.
    """
    return float(np.mean([_score(metric, *pair) for pair in zip(answers.outputs, truths(truth), strict=True)]))


def _score(metric: Metric, output: Output, truth: np.ndarray) -> float:
    try:
        value = raw_score(metric, output, truth)
    except (ValueError, AttributeError, TypeError) as error:
        if metric.function is not None:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _cannot(metric, truth, lines[0]) from None
    if not math.isfinite(value):
        raise _cannot(metric, truth, f"it is {value}")
    return value


def raw_score(metric: Metric, output: Output, truth: np.ndarray) -> float:
    """The value for one label as its scorer or function gives it, which may be NaN, or any error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a scorer that does not apply says so by NaN or an error
        if metric.function is not None and not hasattr(metric.function, "_score_func"):
            value = metric.function(truth, output.predicted)
        else:
            scorer = metric.function or get_scorer(metric.name)
            value = scorer(output.estimator(), np.arange(len(truth)), truth)
    return _number(metric, value)


def _number(metric: Metric, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        returned = printable(value, 200, repr)
        raise InvalidRequest(f"metric {metric.name!r} returned {returned}; expected a number", metric=metric.name)
    return float(value)


def _cannot(metric: Metric, truth: np.ndarray, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"metric {metric.name!r} cannot be computed on {len(truth)} rows with {len(np.unique(truth))} different"
        f" labels: {reason}",
        metric=metric.name,
    )
