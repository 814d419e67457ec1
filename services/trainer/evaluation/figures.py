"""The data of a card's figures: how a model errs on the held-out rows, and what the rows are like it was trained on.

A classifier has a confusion matrix, and for each class (of two classes: for the second) its ROC curve, precision by
recall and, where it gives probabilities, its calibration; a regression has its residuals. All is small enough to be
kept with the evaluation: curves of at most 200 points, at most 12 classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import auc, roc_curve

from services.trainer.evaluation.answers import Answers, Output, label_columns

MAX_CONFUSED_CLASSES = 12
"""Classes in a confusion matrix; rarer ones are together in `other`."""
MAX_CURVES = 6
"""Classes that have curves of their own: those with the most rows."""
OTHER = "other"
RESIDUAL_BANDS = 10
"""Groups of rows by the predicted number whose residuals are summed up."""
RESIDUAL_BARS = 30
"""Of the histogram of residuals."""
MAX_CURVE_POINTS = 200
"""Points that are kept of a curve, evenly along its length; areas are computed from all."""
CALIBRATION_GROUPS = 10
"""Groups of as many rows each that calibration is looked at in."""
MAX_SAMPLED_ROWS = 20_000
"""Rows, evenly spaced, that quantiles, histograms and frequencies are computed from; the rest is of all rows."""
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
FEATURE_BARS = 16
MAX_TEXT_VALUES = 5


def figures(labels: Sequence[str], answers: Answers, truth: np.ndarray) -> dict[str, Any]:
    """Label to figure to data.

    Args:
        labels: the name of each output.
        truth: [n] or [n, outputs]
    """
    of_output = _residuals if answers.task == "regression" else _classes
    return {
        label: of_output(output, own)
        for label, output, own in zip(labels, answers.outputs, label_columns(truth), strict=True)
    }


def _classes(output: Output, truth: np.ndarray) -> dict[str, Any]:
    known = pd.Index(output.classes)
    unseen = pd.Index(pd.unique(pd.Series(truth))).difference(known)
    labels = known.append(unseen)
    true, predicted = labels.get_indexer(pd.Index(truth)), labels.get_indexer(pd.Index(output.predicted))
    names = [shown(label) for label in labels]
    found: dict[str, Any] = {"confusion": _confusion(names, true, predicted)}
    scored = output.probabilities if output.probabilities is not None else output.decisions
    if scored is None:
        return found
    for number in _with_curves(true, len(known)):
        scores, positive = scored if scored.ndim == 1 else scored[:, number], true == number
        drawn = ranking(np.asarray(scores, np.float64), positive)
        if output.probabilities is not None:
            drawn["calibration"] = calibration(np.asarray(scores, np.float64), positive)
        for figure, data in drawn.items():
            found.setdefault(figure, {})[names[number]] = data
    return found


def _with_curves(true: np.ndarray, classes: int) -> list[int]:
    """The numbers of the classes that have curves."""
    if classes == 2:
        return [1]
    times = np.bincount(true, minlength=classes)[:classes]
    return sorted(np.argsort(-times, kind="stable")[:MAX_CURVES].tolist())


def _confusion(names: list[str], true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    if len(names) > MAX_CONFUSED_CLASSES:
        times = np.bincount(true, minlength=len(names)) + np.bincount(predicted, minlength=len(names))
        kept = np.sort(np.argsort(-times, kind="stable")[: MAX_CONFUSED_CLASSES - 1])
        place = np.full(len(names), MAX_CONFUSED_CLASSES - 1)
        place[kept] = np.arange(len(kept))
        true, predicted, names = place[true], place[predicted], [*(names[number] for number in kept), OTHER]
    count = len(names)
    counts = np.bincount(true * count + predicted, minlength=count * count).reshape(count, count)
    return {"labels": names, "counts": counts.tolist()}


def _residuals(output: Output, truth: np.ndarray) -> dict[str, Any]:
    finite = np.isfinite(output.predicted)
    predicted, true = output.predicted[finite], truth[finite].astype(np.float64)
    if not len(true):
        return {}
    residual = true - predicted
    order = np.argsort(predicted, kind="stable")
    groups = np.array_split(order, min(RESIDUAL_BANDS, len(order)))
    bands = np.array([np.quantile(residual[group], (0.1, 0.5, 0.9)) for group in groups])
    # Evenly by the predicted number's rank, so that the picture shows where the rows are.
    drawn = order[np.unique(np.linspace(0, len(order) - 1, min(MAX_CURVE_POINTS, len(order))).round().astype(int))]
    return {
        "residuals": {
            "predicted": rounded(predicted[drawn]),
            "true": rounded(true[drawn]),
            "bands": {
                "predicted": rounded(predicted[group].mean() for group in groups),
                "rows": [len(group) for group in groups],
                **{name: rounded(bands[:, at]) for at, name in enumerate(("low", "middle", "high"))},
            },
            "histogram": histogram(residual, RESIDUAL_BARS),
        }
    }


def shown(value: object) -> str:
    """A value of a label or column, as figures and segments name it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def rounded(values: Iterable[float]) -> list[float]:
    """Numbers with six significant digits, for a file that people may read."""
    return [float(f"{value:.6g}") for value in values]


def histogram(values: np.ndarray, bars: int) -> dict[str, list[float]]:
    """How many of `values` are in each of so many ranges between their 1st and their 99th percentile.

    Args:
        values: [n] finite, at least one.
    """
    lo, hi = np.quantile(values, (0.01, 0.99))
    if hi - lo <= 1e-9 * max(abs(lo), abs(hi), 1e-300):  # all alike, but for rounding
        lo, hi = lo - max(0.5, abs(lo) / 10), hi + max(0.5, abs(hi) / 10)
    counts, edges = np.histogram(values, bins=bars, range=(lo, hi))
    return {"edges": rounded(edges), "counts": counts.tolist()}


def ranking(scores: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    """How well `scores` put the positive rows first: `roc` and `precision_recall`; nothing where all rows are alike.

    Args:
        scores: [n] greater for what is thought positive.
        positive: [n] truth values.
    """
    total = int(positive.sum())
    if not 0 < total < len(positive) or np.isnan(scores).any():
        return {}
    false, recall, _ = roc_curve(positive, np.nan_to_num(scores), drop_intermediate=False)
    hits = recall[1:] * total
    precision = hits / (hits + false[1:] * (len(positive) - total))
    return {
        "roc": {**_thinned(false, recall, false + recall), "area": float(auc(false, recall))},
        "precision_recall": {
            **_thinned(recall[1:], precision, recall[1:]),
            "area": float(np.sum(np.diff(recall) * precision)),
            "share": total / len(positive),
        },
    }


def calibration(probabilities: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    """How often what was given a probability came true: in groups of equal size by that probability.

    Args:
        probabilities: [n]
        positive: [n] truth values.
    """
    order = np.argsort(probabilities, kind="stable")
    groups = np.array_split(order, min(CALIBRATION_GROUPS, len(order)))
    predicted = np.array([probabilities[group].mean() for group in groups])
    observed = np.array([positive[group].mean() for group in groups])
    rows = np.array([len(group) for group in groups])
    return {
        "predicted": rounded(predicted),
        "observed": rounded(observed),
        "rows": rows.tolist(),
        "error": float(np.average(np.abs(predicted - observed), weights=rows)),
    }


def _thinned(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> dict[str, list[float]]:
    """At most `MAX_CURVE_POINTS` of the points, evenly by `along`, which ascends; both ends are among them."""
    kept = np.arange(len(x))
    if len(x) > MAX_CURVE_POINTS:
        wanted = np.linspace(along[0], along[-1], MAX_CURVE_POINTS)
        kept = np.unique(np.searchsorted(along, wanted).clip(0, len(x) - 1))
    return {"x": rounded(x[kept]), "y": rounded(y[kept])}


def feature_statistics(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Input to its statistics: share of `missing` values, and of numbers mean, range, quantiles and a histogram
    between the 1st and the 99th percentile, of text the most frequent values with their shares.

    Args:
        rows: [n, inputs]; missing values are NaN or the empty text.
    """
    step = max(1, -(-len(rows) // MAX_SAMPLED_ROWS))
    return {str(name): _column(rows[name], step) for name in rows.columns}


def _column(values: pd.Series, step: int) -> dict[str, Any]:
    if not pd.api.types.is_numeric_dtype(values):
        return _text(values.iloc[::step])
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    absent = np.isnan(numbers)
    present = numbers[~absent] if absent.any() else numbers
    found: dict[str, Any] = {"missing": float(absent.mean())}
    if not len(present):
        return found
    sample = present[::step]
    of_all = rounded((present.mean(), present.std(), present.min(), present.max()))
    quantiles = rounded(np.quantile(sample, list(QUANTILES.values())))
    return {
        **found,
        **dict(zip(("mean", "std", "min", "max"), of_all, strict=True)),
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "histogram": histogram(sample, FEATURE_BARS),
    }


def _text(values: pd.Series) -> dict[str, Any]:
    absent = (values.isna() | (values == "")).to_numpy(np.bool_)
    counts = values[~absent].value_counts()
    return {
        "missing": float(absent.mean()),
        "different": len(counts),
        "values": {str(value): times / len(values) for value, times in counts.iloc[:MAX_TEXT_VALUES].items()},
    }
