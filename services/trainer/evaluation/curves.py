"""What figures are made of: histograms, and the curves of one class against all others, thinned to be drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

MOST_POINTS = 200
"""Points that are kept of a curve, evenly along its length; areas are computed from all."""
BINS = 10
"""Groups of as many rows each that calibration is looked at in."""


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
    if not 0 < total < len(positive):
        return {}
    order = np.argsort(scores, kind="stable")[::-1]
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # rows of one score are one step
    hits = np.cumsum(positive[order])[last]
    said = last + 1
    recall, false = hits / total, (said - hits) / (len(positive) - total)
    precision = hits / said
    return {
        "roc": _roc(false, recall),
        "precision_recall": {
            **_thinned(recall, precision, recall),
            "area": float(np.sum(np.diff(recall, prepend=0.0) * precision)),
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
    groups = [group for group in np.array_split(order, min(BINS, len(order))) if len(group)]
    said = np.array([probabilities[group].mean() for group in groups])
    true = np.array([positive[group].mean() for group in groups])
    rows = np.array([len(group) for group in groups])
    return {
        "said": rounded(said),
        "true": rounded(true),
        "rows": rows.tolist(),
        "error": float(np.average(np.abs(said - true), weights=rows)),
    }


def _roc(false: np.ndarray, recall: np.ndarray) -> dict[str, Any]:
    x, y = np.insert(false, 0, 0.0), np.insert(recall, 0, 0.0)
    return {**_thinned(x, y, x + y), "area": float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))}


def _thinned(x: np.ndarray, y: np.ndarray, along: np.ndarray) -> dict[str, list[float]]:
    """At most `MOST_POINTS` of the points, evenly by `along`, which ascends; both ends are among them."""
    kept = np.arange(len(x))
    if len(x) > MOST_POINTS:
        wanted = np.linspace(along[0], along[-1], MOST_POINTS)
        kept = np.unique(np.searchsorted(along, wanted).clip(0, len(x) - 1))
    return {"x": rounded(x[kept]), "y": rounded(y[kept])}
