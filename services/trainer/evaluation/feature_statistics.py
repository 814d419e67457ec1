"""What the rows look like that a model was trained on, input by input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from services.trainer.evaluation.curves import histogram, rounded

SAMPLED = 20_000
"""Rows, evenly spaced, that quantiles, histograms and frequencies are computed from; the rest is of all rows."""
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
BARS = 16
MOST_VALUES = 5


def feature_statistics(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Input to its statistics: share of `missing` values, and of numbers mean, range, quantiles and a histogram
    between the 1st and the 99th percentile, of text the most frequent values with their shares.

    Args:
        rows: [n, inputs]; missing values are NaN or the empty text.
    """
    step = max(1, -(-len(rows) // SAMPLED))
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
        "histogram": histogram(sample, BARS),
    }


def _text(values: pd.Series) -> dict[str, Any]:
    absent = (values.isna() | (values == "")).to_numpy(np.bool_)
    counts = values[~absent].value_counts()
    return {
        "missing": float(absent.mean()),
        "different": len(counts),
        "values": {str(value): times / len(values) for value, times in counts.iloc[:MOST_VALUES].items()},
    }
