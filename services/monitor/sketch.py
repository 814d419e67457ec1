"""Quantiles of many latencies in little space: a DDSketch, kept as what it is, the count of values in each bucket.

The buckets are those of the `ddsketch` library: each is 2 % wide, so whatever lies in one is at most 1 % off its
middle. As a plain `Counter` a sketch merges by addition, exactly and in any order, and prints as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ddsketch.mapping import LogarithmicMapping

RELATIVE_ERROR = 0.01
"""How far a quantile may be from the exact one, as a share of it."""
SMALLEST_MS = 1e-6
"""A nanosecond: what is shorter counts as this long."""

Sketch = Counter[int]
"""Bucket number to the count of values in it."""

_mapping = LogarithmicMapping(RELATIVE_ERROR)


def bucket(value_ms: float) -> int:
    """The number of the bucket that a finite `value_ms` of at least 0 falls into."""
    return int(_mapping.key(max(value_ms, SMALLEST_MS)))


def percentiles(sketch: Sketch, percents: Sequence[int]) -> list[float]:
    """The nearest-rank percentiles of a sketch that is not empty: of n values in order the ceil(n * percent / 100)th.

    `percents` are whole, above 0 and ascending.
    """
    total = sketch.total()
    ranks = iter([-(-total * percent // 100) for percent in percents])  # in integers, where ceil is exact
    rank = next(ranks)
    found: list[float] = []
    seen = 0
    for number in sorted(sketch):
        seen += sketch[number]
        while seen >= rank:
            found.append(_mapping.value(number))
            if len(found) == len(percents):
                return found
            rank = next(ranks)
    raise ValueError("the sketch is empty")


def to_text(sketch: Sketch) -> str:
    """`bucket:count` pairs in order, such as `-12:3 40:1`."""
    return " ".join(f"{number}:{sketch[number]}" for number in sorted(sketch))


def from_text(text: str) -> Sketch:
    """The sketch that `to_text` wrote."""
    pairs = (pair.split(":") for pair in text.split())
    return Counter({int(number): int(count) for number, count in pairs})
