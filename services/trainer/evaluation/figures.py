"""The data of the figures that show how a model errs, from what it says of the held-out rows.

A classifier has a confusion matrix, and for each class (of two classes: for the second) its ROC curve, precision by
recall and, where it gives probabilities, its calibration; a regression has its residuals. All is small enough to be
kept with the evaluation: curves of at most 200 points, at most 12 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from services.trainer.evaluation.answers import Answers, Output, truths
from services.trainer.evaluation.curves import MOST_POINTS, calibration, histogram, ranking, rounded

MOST_CLASSES = 12
"""Classes in a confusion matrix; rarer ones are together in `other`."""
MOST_CURVES = 6
"""Classes that have curves of their own: those with the most rows."""
OTHER = "other"
BANDS = 10
"""Groups of rows by the predicted number whose residuals are summed up."""
BARS = 30
"""Of the histogram of residuals."""


def figures(labels: Sequence[str], answers: Answers, truth: np.ndarray) -> dict[str, Any]:
    """Label to figure to data.

    Args:
        labels: the name of each output.
        truth: [n] or [n, outputs]
    """
    of_output = _residuals if answers.task == "regression" else _classes
    return {
        label: of_output(output, own) for label, output, own in zip(labels, answers.outputs, truths(truth), strict=True)
    }


def _classes(output: Output, truth: np.ndarray) -> dict[str, Any]:
    known = pd.Index(output.classes)
    unseen = pd.Index(pd.unique(pd.Series(truth))).difference(known)
    labels = known.append(unseen)
    true, said = labels.get_indexer(pd.Index(truth)), labels.get_indexer(pd.Index(output.predicted))
    names = [_name(label) for label in labels]
    found: dict[str, Any] = {"confusion": _confusion(names, true, said)}
    scored = output.probabilities if output.probabilities is not None else output.decisions
    if scored is None:
        return found
    for number in _curved(true, len(known)):
        scores, positive = scored if scored.ndim == 1 else scored[:, number], true == number
        drawn = ranking(np.asarray(scores, np.float64), positive)
        if output.probabilities is not None:
            drawn["calibration"] = calibration(np.asarray(scores, np.float64), positive)
        for figure, data in drawn.items():
            found.setdefault(figure, {})[names[number]] = data
    return found


def _curved(true: np.ndarray, classes: int) -> list[int]:
    """The numbers of the classes that have curves."""
    if classes == 2:
        return [1]
    times = np.bincount(true, minlength=classes)[:classes]
    return sorted(np.argsort(-times, kind="stable")[:MOST_CURVES].tolist())


def _confusion(names: list[str], true: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    if len(names) > MOST_CLASSES:
        times = np.bincount(true, minlength=len(names)) + np.bincount(said, minlength=len(names))
        kept = np.sort(np.argsort(-times, kind="stable")[: MOST_CLASSES - 1])
        place = np.full(len(names), MOST_CLASSES - 1)
        place[kept] = np.arange(len(kept))
        true, said, names = place[true], place[said], [*(names[number] for number in kept), OTHER]
    count = len(names)
    counts = np.bincount(true * count + said, minlength=count * count).reshape(count, count)
    return {"labels": names, "counts": counts.tolist()}


def _residuals(output: Output, truth: np.ndarray) -> dict[str, Any]:
    finite = np.isfinite(output.predicted)
    predicted, true = output.predicted[finite], truth[finite].astype(np.float64)
    if not len(true):
        return {}
    residual = true - predicted
    order = np.argsort(predicted, kind="stable")
    groups = [group for group in np.array_split(order, min(BANDS, len(order))) if len(group)]
    bands = np.array([np.quantile(residual[group], (0.1, 0.5, 0.9)) for group in groups])
    # Evenly by the predicted number's rank, so that the picture shows where the rows are.
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_POINTS, len(order))).round().astype(int))]
    return {
        "residuals": {
            "predicted": rounded(predicted[shown]),
            "true": rounded(true[shown]),
            "bands": {
                "predicted": rounded(predicted[group].mean() for group in groups),
                "rows": [len(group) for group in groups],
                **{name: rounded(bands[:, at]) for at, name in enumerate(("low", "middle", "high"))},
            },
            "histogram": histogram(residual, BARS),
        }
    }


def _name(label: object) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)
