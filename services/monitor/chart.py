"""The geometry of the first page's small charts, in the units of their SVG view box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320.0, 72.0
GAP = 2.0
"""Between two bars."""


@dataclass(frozen=True)
class Bar:
    """A rectangle that stands on the chart's floor."""

    x: float
    y: float
    width: float
    height: float


def bars(values: Sequence[float]) -> list[Bar]:
    """A bar for each of `values` (at least 0), from left to right; the largest as high as the chart."""
    step = WIDTH / max(1, len(values))
    top = max(values, default=0.0) or 1.0
    heights = [round(HEIGHT * value / top, 1) for value in values]
    return [
        Bar(round(number * step + GAP / 2, 1), round(HEIGHT - height, 1), round(step - GAP, 1), height)
        for number, height in enumerate(heights)
    ]


def lines(values: Sequence[float | None]) -> list[str]:
    """The points of a polyline for each unbroken stretch of `values`, the largest at the top of the chart.

    A stretch of one value becomes a short level stroke.
    """
    step = WIDTH / max(1, len(values))
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    stretches: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(((number + 0.5) * step, HEIGHT - HEIGHT * value / top))
    return [_points(stretch, step) for stretch in stretches if stretch]


def _points(stretch: list[tuple[float, float]], step: float) -> str:
    if len(stretch) == 1:
        ((x, y),) = stretch
        stretch = [(x - step / 2, y), (x + step / 2, y)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in stretch)
