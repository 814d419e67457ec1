"""The distribution of many numbers in little space: a DDSketch of both signs, as arrays that merge by addition.

The buckets are those of the `ddsketch` library: each is 2 % wide, so whatever lies in one is at most 1 % off its
middle. Merging is exact and in any order: a sketch of two parts is the sketch of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ddsketch.mapping import LogarithmicMapping
from numpy.typing import NDArray

RELATIVE_ERROR = 0.01
"""How far a quantile may be from the exact one, as a share of it."""
OFFSET = 40_000
"""Added to a bucket's number, which for any float but 0 is nearer to 0 than this."""

_gamma = LogarithmicMapping(RELATIVE_ERROR).gamma
_log_gamma = math.log(_gamma)
_log_middle = math.log((1 + _gamma) / 2)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts of values by bucket, in the order of the values.

    The bucket of a positive value is ceil(log(value) / log(gamma)) + `OFFSET`, of a negative one the same of its
    absolute value with a minus sign, of 0 it is 0; so their order is that of the values.
    """

    buckets: Ints
    """Ascending, each once."""
    counts: Ints

    @classmethod
    def of(cls, values: Floats) -> Sketch:
        """The sketch of finite `values`."""
        with np.errstate(divide="ignore"):
            numbers = np.ceil(np.log(np.abs(values)) / _log_gamma) + OFFSET
        buckets = np.where(values == 0, 0, np.copysign(numbers, values)).astype(np.int64)
        return cls._summed(buckets, np.ones(len(buckets), np.int64))

    @classmethod
    def merged(cls, sketches: Sequence[Sketch]) -> Sketch:
        """The sketch of all values of several."""
        if len(sketches) == 1:
            return sketches[0]
        return cls._summed(
            np.concatenate([np.empty(0, np.int64), *(sketch.buckets for sketch in sketches)]),
            np.concatenate([np.empty(0, np.int64), *(sketch.counts for sketch in sketches)]),
        )

    @classmethod
    def _summed(cls, buckets: Ints, counts: Ints) -> Sketch:
        """Counts of equal buckets added up; exact up to 2**53."""
        if not len(buckets):
            return cls(buckets, counts)
        first = buckets.min()
        if buckets.max() - first > 8 * len(buckets):  # few values, far apart
            found, places = np.unique(buckets, return_inverse=True)
            return cls(found, np.bincount(places, counts).astype(np.int64))
        dense = np.bincount(buckets - first, counts)
        filled = np.flatnonzero(dense)
        return cls(filled + first, dense[filled].astype(np.int64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sketch):
            return NotImplemented
        return np.array_equal(self.buckets, other.buckets) and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.buckets.tobytes(), self.counts.tobytes()))

    @property
    def total(self) -> int:
        """How many values it holds."""
        return int(self.counts.sum())

    def middles(self) -> Floats:
        """The value that stands for each bucket."""
        logs = (np.abs(self.buckets) - OFFSET) * _log_gamma - _log_middle
        with np.errstate(over="ignore"):
            found: Floats = np.where(self.buckets == 0, 0.0, np.copysign(np.exp(logs), self.buckets))
        return found

    def percentiles(self, percents: Sequence[int]) -> list[float]:
        """Nearest-rank percentiles, whole ones from 1 to 100: of n values in order the ceil(n * percent / 100)th.

        Raises:
            ValueError: where there are no values.
        """
        if not len(self.counts):
            raise ValueError("the sketch is empty")
        total = self.total
        ranks = [-(-total * percent // 100) for percent in percents]  # in integers, where ceil is exact
        places = np.searchsorted(np.cumsum(self.counts), ranks)
        found: list[float] = Sketch(self.buckets[places], self.counts[places]).middles().tolist()
        return found

    def histogram(self, edges: Floats) -> list[int]:
        """How many values lie between neighbours of the ascending `edges`; what is outside counts at the ends."""
        places = np.clip(np.searchsorted(edges, self.middles(), side="right") - 1, 0, len(edges) - 2)
        return [int(count) for count in np.bincount(places, self.counts, len(edges) - 1)]

    def to_text(self) -> str:
        """`bucket:count` pairs in order, such as `39988:3 40040:1`."""
        pairs = zip(self.buckets.tolist(), self.counts.tolist(), strict=True)
        return " ".join([f"{bucket}:{count}" for bucket, count in pairs])

    @classmethod
    def from_text(cls, text: str) -> Sketch:
        """What `to_text` wrote."""
        numbers = np.array(text.replace(":", " ").split(), np.int64)
        return cls(numbers[::2], numbers[1::2])

    def to_json(self) -> dict[str, Any]:
        """Two lists of whole numbers."""
        return {"buckets": self.buckets.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Sketch:
        """What `to_json` wrote."""
        return cls(np.array(content["buckets"], np.int64), np.array(content["counts"], np.int64))
