"""Metrics that are functions of sums over rows: their bootstrap needs no row twice, only other weights of the sums.

Accuracy is a mean, F1 a function of three counts, R² of four sums. The area under the ROC curve is none; in its place
stands its projection on rows (DeLong, DeLong and Clarke-Pearson 1988), which has the same value on the whole and the
same variance but for terms that vanish with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.declare.metrics import Metric
from services.trainer.evaluation.answers import Output

MOST_CLASSES = 30
"""Classes up to which counts of each are summed."""
Value = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Additive:
    """A metric of n rows, ready to be computed for any weights of theirs."""

    columns: Sequence[np.ndarray]
    """k statistics of the rows, each [n]."""
    value: Value
    """[resamples, k] weighted sums of them -> [resamples] values, NaN where there is none."""

    def sums(self, blocks: np.ndarray, count: int) -> np.ndarray:
        """[count, k] sums of the statistics over the blocks that the n rows are in."""
        return np.column_stack([np.bincount(blocks, column, count) for column in self.columns])


def additive(metric: Metric, output: Output, truth: np.ndarray) -> Additive | None:
    """`metric` of these answers as a function of sums, or None where it is not known as one.

    Args:
        truth: [n]
    """
    if metric.function is not None:
        return None
    if metric.name in ROW_LOSSES:
        loss, root = ROW_LOSSES[metric.name]
        return _mean(loss(output, truth), root=root)
    if metric.name in SUMS:
        return SUMS[metric.name](output, truth)
    name, _, average = metric.name.partition("_")
    if metric.name in COUNTS or (name in COUNTS and average in ("macro", "micro", "weighted")):
        of = COUNTS.get(metric.name) or COUNTS[name]
        return _counted(of, average if metric.name not in COUNTS else ONLY[metric.name], output, truth)
    return None


def _mean(losses: np.ndarray, *, root: bool = False, sign: int = -1) -> Additive:
    def value(sums: np.ndarray) -> np.ndarray:
        mean: np.ndarray = sums[:, 1] / sums[:, 0]
        return sign * (np.sqrt(mean) if root else mean)

    return Additive([np.ones(len(losses)), losses], value)


def _log_loss(output: Output, truth: np.ndarray) -> np.ndarray:
    assert output.probabilities is not None
    given = output.probabilities[np.arange(len(truth)), np.searchsorted(output.classes, truth)]
    least = np.finfo(given.dtype).eps
    losses: np.ndarray = -np.log(np.clip(given, least, 1 - least))
    return losses


def _brier(output: Output, truth: np.ndarray) -> np.ndarray:
    assert output.probabilities is not None
    off = output.probabilities - (truth[:, None] == output.classes)
    total: np.ndarray = (off**2).sum(axis=1)
    return total / 2 if len(output.classes) == 2 else total


def _error(output: Output, truth: np.ndarray) -> np.ndarray:
    error: np.ndarray = output.predicted - truth
    return error


def _log_error(output: Output, truth: np.ndarray) -> np.ndarray:
    error: np.ndarray = np.log1p(output.predicted) - np.log1p(truth)
    return error


def _relative_error(output: Output, truth: np.ndarray) -> np.ndarray:
    relative: np.ndarray = np.abs(_error(output, truth)) / np.maximum(np.abs(truth), np.finfo(np.float64).eps)
    return relative


ROW_LOSSES: dict[str, tuple[Callable[[Output, np.ndarray], np.ndarray], bool]] = {
    "neg_log_loss": (_log_loss, False),
    "neg_brier_score": (_brier, False),
    "neg_mean_absolute_error": (lambda o, t: np.abs(_error(o, t)), False),
    "neg_mean_absolute_percentage_error": (_relative_error, False),
    "neg_mean_squared_error": (lambda o, t: _error(o, t) ** 2, False),
    "neg_root_mean_squared_error": (lambda o, t: _error(o, t) ** 2, True),
    "neg_mean_squared_log_error": (lambda o, t: _log_error(o, t) ** 2, False),
    "neg_root_mean_squared_log_error": (lambda o, t: _log_error(o, t) ** 2, True),
}
"""Scorer to the loss of each row of which it is the negative mean, and whether the root is taken of that."""


def _accuracy(output: Output, truth: np.ndarray) -> Additive:
    return _mean((output.predicted == truth).astype(np.float64), sign=1)


def _r2(output: Output, truth: np.ndarray) -> Additive:
    centred = truth - truth.mean()

    def value(sums: np.ndarray) -> np.ndarray:
        total = sums[:, 3] - sums[:, 2] ** 2 / sums[:, 0]
        return np.where(total > 0, 1 - sums[:, 1] / np.where(total > 0, total, 1), np.nan)

    return Additive([np.ones(len(truth)), _error(output, truth) ** 2, centred, centred**2], value)


def _explained_variance(output: Output, truth: np.ndarray) -> Additive:
    centred, error = truth - truth.mean(), _error(output, truth)

    def value(sums: np.ndarray) -> np.ndarray:
        total = sums[:, 4] - sums[:, 3] ** 2 / sums[:, 0]
        unexplained = sums[:, 2] - sums[:, 1] ** 2 / sums[:, 0]
        return np.where(total > 0, 1 - unexplained / np.where(total > 0, total, 1), np.nan)

    return Additive([np.ones(len(truth)), error, error**2, centred, centred**2], value)


def _roc_auc(output: Output, truth: np.ndarray) -> Additive | None:
    if len(output.classes) != 2:
        return None
    ranked = output.decisions if output.probabilities is None else output.probabilities[:, 1]
    return None if ranked is None else _auc(ranked, truth == output.classes[1])


def _auc(ranked: np.ndarray, positive: np.ndarray) -> Additive | None:
    """By the share of the other class that each row is on the right side of; half of those at its own score."""
    if not 0 < positive.sum() < len(positive):
        return None
    values, at = np.unique(ranked, return_inverse=True)
    of_positive = np.bincount(at[positive], minlength=len(values))
    of_negative = np.bincount(at[~positive], minlength=len(values))
    below = (np.cumsum(of_negative) - of_negative / 2) / of_negative.sum()
    above = 1 - (np.cumsum(of_positive) - of_positive / 2) / of_positive.sum()
    placed = np.where(positive, below[at], above[at])
    area = placed[positive].mean()

    def value(sums: np.ndarray) -> np.ndarray:
        both = (sums[:, 0] > 0) & (sums[:, 1] > 0)
        projected = sums[:, 2] / np.maximum(sums[:, 0], 1) + sums[:, 3] / np.maximum(sums[:, 1], 1) - area
        return np.where(both, np.clip(projected, 0, 1), np.nan)

    return Additive([positive * 1.0, ~positive * 1.0, positive * placed, ~positive * placed], value)


SUMS: dict[str, Callable[[Output, np.ndarray], Additive | None]] = {
    "accuracy": _accuracy,
    "r2": _r2,
    "explained_variance": _explained_variance,
    "roc_auc": _roc_auc,
}


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by, as scikit-learn has it."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0)


Counts = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
COUNTS: dict[str, Counts] = {
    "precision": lambda hit, said, real: _divided(hit, said),
    "recall": lambda hit, said, real: _divided(hit, real),
    "f1": lambda hit, said, real: _divided(2 * hit, said + real),
    "jaccard": lambda hit, said, real: _divided(hit, said + real - hit),
    "balanced_accuracy": lambda hit, said, real: _divided(hit, real),
}
"""Scorer to its value of a class that was right so often, predicted so often and true so often; each [..., classes]."""
ONLY = {"precision": "binary", "recall": "binary", "f1": "binary", "jaccard": "binary", "balanced_accuracy": "true"}
"""How values of the classes become one where the scorer's name does not say."""


def _counted(of: Counts, average: str, output: Output, truth: np.ndarray) -> Additive | None:
    labels = np.unique(np.concatenate([truth, output.predicted.astype(truth.dtype)]))
    count = len(labels)
    if count > MOST_CLASSES or (average == "binary" and 1 not in labels.tolist()):
        return None
    real, said = truth[:, None] == labels, output.predicted[:, None] == labels
    columns = [part[:, one].astype(np.float64) for part in (real & said, said, real) for one in range(count)]

    def value(sums: np.ndarray) -> np.ndarray:
        hit, predicted, true = sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count :]
        if average == "micro":
            return of(hit.sum(axis=1), predicted.sum(axis=1), true.sum(axis=1))
        of_class = of(hit, predicted, true)
        if average == "binary":
            return of_class[:, labels.tolist().index(1)]
        weight = {"macro": predicted + true > 0, "true": true > 0, "weighted": true}[average]
        mean: np.ndarray = (of_class * weight).sum(axis=1) / weight.sum(axis=1)
        return mean

    return Additive(columns, value)
