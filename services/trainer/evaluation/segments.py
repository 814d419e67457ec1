"""The held-out rows parted by the values of a column, so that a model is seen where it is good and where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

MOST = 12
"""Values that are segments of their own; rows of rarer ones are together in `other`."""
BINS = 4
"""Ranges of a number with more than `MOST` different values, each with as many rows."""
OTHER, ABSENT = "other", "missing"


@dataclass(frozen=True)
class Parts:
    """n rows parted by one column."""

    codes: np.ndarray
    """[n] the number of each row's segment."""
    names: tuple[str, ...]
    """Values, or ranges such as `[2, 7)`."""
    note: str
    """What is to be known of them, or nothing."""

    def masks(self) -> dict[str, np.ndarray]:
        """Segment to which rows are in it; what has one name is one segment, such as a value `other` and the rest."""
        found: dict[str, np.ndarray] = {}
        for code, name in enumerate(self.names):
            found[name] = found.get(name, False) | (self.codes == code)
        return found


def parts(values: pd.Series) -> Parts:
    """Part rows by their values; a number with many values is parted at its quantiles.

    Args:
        values: [n]; None, NaN and the empty text are missing values.
    """
    absent = (values.isna() | (values == "")).to_numpy(np.bool_)
    present = values[~absent]
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric and present.nunique() > MOST:
        inside, names, note = _ranges(present.to_numpy(np.float64))
    else:
        inside, names, note = _values(present)
    codes = np.full(len(values), len(names))
    codes[~absent] = inside
    return Parts(codes, (*names, ABSENT) if absent.any() else tuple(names), note)


def _ranges(numbers: np.ndarray) -> tuple[np.ndarray, list[str], str]:
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)))
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"[{lo:.6g}, {hi:.6g}{']' if hi == edges[-1] else ')'}" for lo, hi in pairwise(edges)]
    return codes, names, f"{len(names)} ranges by quantiles of the held-out rows"


def _values(values: pd.Series) -> tuple[np.ndarray, list[str], str]:
    counts = values.value_counts(sort=True)
    if len(counts) <= MOST:
        kept = counts.index.sort_values()
        return kept.get_indexer(pd.Index(values)), [_name(value) for value in kept], ""
    kept = counts.index[:MOST]
    codes = kept.get_indexer(pd.Index(values))
    note = f"the {MOST} most frequent of {len(counts)} values; the others are together in {OTHER!r}"
    return np.where(codes < 0, MOST, codes), [*(_name(value) for value in kept), OTHER], note


def _name(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
