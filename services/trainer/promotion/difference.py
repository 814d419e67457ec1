"""How far the answers of a packaged model are from those of the estimator that it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.trainer.evaluation.answers import Answers, Output


@dataclass(frozen=True)
class Difference:
    """Between two models on the same rows."""

    largest: float
    """Of probabilities or distances as they are, of numbers relative to the larger of the number and the spread."""
    labels: int
    """Rows with another label, other than where probabilities as near to each other as `largest` decide."""
    rows: int

    def __str__(self) -> str:
        other = f", {self.labels} of {self.rows} rows with another label" if self.labels else ""
        return f"answers differ by at most {self.largest:.3g} on {self.rows} rows{other}"


def difference(estimator: Answers, packaged: Answers) -> Difference:
    """Compare the answers of both to the same rows."""
    found = [_of(own, other) for own, other in zip(estimator.outputs, packaged.outputs, strict=True)]
    return Difference(max(one for one, _ in found), sum(labels for _, labels in found), len(estimator))


def _of(own: Output, other: Output) -> tuple[float, int]:
    """The largest difference of two outputs, and the rows whose labels differ without need."""
    if not len(own.classes):
        return _relative(own.predicted, other.predicted), 0
    differs = own.predicted != other.predicted
    for mine, theirs in ((own.probabilities, other.probabilities), (own.decisions, other.decisions)):
        if mine is not None and theirs is not None:
            largest = float(np.abs(mine - theirs).max())
            return largest, int((differs & ~_undecided(mine, largest)).sum())
    return 0.0, int(differs.sum())


def _undecided(values: np.ndarray, margin: float) -> np.ndarray:
    """Which rows a difference of `margin` may decide otherwise."""
    if values.ndim == 1:
        near: np.ndarray = np.abs(values) <= margin
    else:
        best = np.sort(values, axis=1)[:, -2:]
        near = best[:, -1] - best[:, 0] <= 2 * margin
    return near


def _relative(own: np.ndarray, other: np.ndarray) -> float:
    scale = np.maximum(np.abs(own), own.std())
    gap = np.abs(own - other)
    return float(np.divide(gap, scale, out=gap.copy(), where=scale > 0).max())
