"""What is known of many values of a column: counts, moments, quantiles, histogram, most frequent values.

Statistics merge: those of two sets of rows give those of both together, the moments within 1e-9 of the largest
absolute value, everything else but the most frequent values exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelmill.columns.sketch import RELATIVE_ERROR, Floats, Sketch

MAX_TOP = 1000
"""Distinct values up to which each is counted."""
PERCENTS = (1, 5, 25, 50, 75, 95, 99)
HISTOGRAM_BINS = 20
EXACT_BELOW = 0.49 / RELATIVE_ERROR
"""Whole numbers up to which the sketch's error is less than a half."""
MAX_SHOWN_VALUES = 20
"""Most frequent values of an answer."""

Value = int | str | bool


@dataclass(frozen=True)
class TopValues:
    """The most frequent values with their counts.

    A count is at most `error` too low, and a value that is not listed occurs at most `error` times. Up to `MAX_TOP`
    distinct values everything is listed and `error` is 0.
    """

    counts: dict[Value, int] = field(default_factory=dict)
    """By falling count, equal ones by value."""
    error: int = 0

    @classmethod
    def merged(cls, parts: Sequence[TopValues]) -> TopValues:
        """Those of all values of several."""
        if len(parts) == 1:
            return parts[0]
        counts: Counter[Value] = Counter()
        for part in parts:
            counts.update(part.counts)
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        left_out = ordered[MAX_TOP][1] if len(ordered) > MAX_TOP else 0
        return cls(dict(ordered[:MAX_TOP]), sum(part.error for part in parts) + left_out)


@dataclass(frozen=True)
class Numbers:
    """The distribution of at least one number."""

    count: int
    mean: float
    std: float
    """Of the values as a whole population: divided by their count, not by one less."""
    min: float | int
    max: float | int
    sketch: Sketch

    @classmethod
    def of(cls, values: Floats, smallest: float | int, largest: float | int) -> Numbers:
        """Those of finite `values`, whose exact extremes are given too: an int may not fit a float."""
        scale = _scale(smallest, largest)
        scaled = np.ldexp(values, -scale)  # exact; squares of what is below 1 do not overflow
        mean = float(scaled.mean())
        std = math.sqrt(float(np.square(scaled - mean).mean()))
        return cls(len(values), _scaled(mean, scale), _scaled(std, scale), smallest, largest, Sketch.of(values))

    @classmethod
    def merged(cls, parts: Sequence[Numbers]) -> Numbers:
        """Those of all values of several."""
        if len(parts) == 1:
            return parts[0]
        count = sum(part.count for part in parts)
        smallest, largest = min(part.min for part in parts), max(part.max for part in parts)
        scale = _scale(smallest, largest)
        moments = [(p.count, math.ldexp(p.mean, -scale), math.ldexp(p.std, -scale)) for p in parts]
        mean = math.fsum(n * m for n, m, _ in moments) / count
        variance = math.fsum(n * (s * s + (m - mean) * (m - mean)) for n, m, s in moments) / count
        return cls(
            count,
            _scaled(mean, scale),
            _scaled(math.sqrt(variance), scale),
            smallest,
            largest,
            Sketch.merged([part.sketch for part in parts]),
        )

    def percentiles(self, percents: Sequence[int] = PERCENTS) -> list[float]:
        """Nearest-rank percentiles, at most `sketch.RELATIVE_ERROR` off; whole numbers nearer to 0 than 49 exact."""
        found = [min(max(value, float(self.min)), float(self.max)) for value in self.sketch.percentiles(percents)]
        if isinstance(self.min, int):  # what is less than half off is the nearest whole number
            return [round(value) if abs(value) < EXACT_BELOW else value for value in found]
        return found

    def edges(self, bins: int = HISTOGRAM_BINS) -> Floats:
        """The edges of so many equally wide bins from the smallest to the largest value; of one if they are equal."""
        shares = np.linspace(0.0, 1.0, (bins if self.min < self.max else 1) + 1)
        found: Floats = float(self.min) * (1 - shares) + float(self.max) * shares
        return found


@dataclass(frozen=True)
class ColumnStatistics:
    """What is known of some rows' values of a column of type `dtype`."""

    dtype: str
    count: int
    """Rows with a value."""
    nulls: int
    """Rows without one."""
    numbers: Numbers | None
    """For `float` and `int`, where there are values."""
    top: TopValues | None
    """For `int`, `bool` and `str`."""

    @classmethod
    def merged(cls, parts: Sequence[ColumnStatistics]) -> ColumnStatistics:
        """Those of all rows of several, of which there is at least one.

        Those of another type than the last one are left out: their column was declared anew.
        """
        if len(parts) == 1:
            return parts[0]
        parts = [part for part in parts if part.dtype == parts[-1].dtype]
        numbers = [part.numbers for part in parts if part.numbers is not None]
        tops = [part.top for part in parts if part.top is not None]
        return cls(
            parts[0].dtype,
            sum(part.count for part in parts),
            sum(part.nulls for part in parts),
            Numbers.merged(numbers) if numbers else None,
            TopValues.merged(tops) if tops else None,
        )

    def answer(self, *, detail: bool) -> dict[str, Any]:
        """As people ask for it; with `detail` with histogram and the most frequent values."""
        shown: dict[str, Any] = {"dtype": self.dtype, "count": self.count, "nulls": self.nulls}
        if (numbers := self.numbers) is not None:
            quantiles = {f"p{p:02}": v for p, v in zip(PERCENTS, numbers.percentiles(), strict=True)}
            shown |= {"mean": numbers.mean, "std": numbers.std, "min": numbers.min, "max": numbers.max, **quantiles}
            if detail:
                edges = numbers.edges()
                shown["histogram"] = {"edges": edges.tolist(), "counts": numbers.sketch.histogram(edges)}
        if detail and self.top is not None:
            first = list(self.top.counts.items())[:MAX_SHOWN_VALUES]
            shown["top"] = [{"value": value, "count": count} for value, count in first]
            shown["top_error"] = self.top.error
        return shown

    def to_json(self) -> dict[str, Any]:
        """As it is stored: complete."""
        stored: dict[str, Any] = {"dtype": self.dtype, "count": self.count, "nulls": self.nulls}
        if (numbers := self.numbers) is not None:
            stored |= {"mean": numbers.mean, "std": numbers.std, "min": numbers.min, "max": numbers.max}
            stored["sketch"] = numbers.sketch.to_json()
        if self.top is not None:
            stored |= {"top": list(self.top.counts.items()), "top_error": self.top.error}
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ColumnStatistics:
        """What `to_json` wrote."""
        numbers = top = None
        if "sketch" in stored:
            moments = {name: stored[name] for name in ("count", "mean", "std", "min", "max")}
            numbers = Numbers(**moments, sketch=Sketch.from_json(stored["sketch"]))
        if "top" in stored:
            top = TopValues(dict(stored["top"]), stored["top_error"])
        return cls(stored["dtype"], stored["count"], stored["nulls"], numbers, top)


def _scale(smallest: float | int, largest: float | int) -> int:
    """The exponent of a power of two that is above all absolute values, and so above their mean and std."""
    return math.frexp(max(abs(float(smallest)), abs(float(largest))))[1]


def _scaled(share: float, scale: int) -> float:
    """`share` times 2**scale; rounding may have taken a share to 1, one step above the largest float."""
    return math.ldexp(min(max(share, -_BELOW_ONE), _BELOW_ONE), scale)


_BELOW_ONE = math.nextafter(1.0, 0.0)
