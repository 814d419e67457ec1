"""Small charts as SVG, drawn by pure functions: lines, points, bars, heat maps.

Colours, fonts and strokes are the card's style sheet's, by class. Every chart has a title and a description for those
who do not see it; text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from zlib import crc32

from markupsafe import Markup

WIDTH, HEIGHT = 360.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 10.0, 10.0, 38.0
"""Margins of the plot, where ticks and the names of the axes are."""
TICKS = 5
BAR_HEIGHT, BAR_WIDTH, BAR_NAME = 20.0, 720.0, 215.0
LONGEST_NAME, LONGEST_LABEL = 28, 11


@dataclass(frozen=True)
class Axis:
    """What is drawn from left to right, or from bottom to top."""

    name: str
    lo: float
    hi: float

    @classmethod
    def around(cls, name: str, values: Sequence[float], *also: float) -> Axis:
        """The axis that just holds all `values`, with a little air."""
        lo, hi = min([*values, *also]), max([*values, *also])
        air = (hi - lo) * 0.04 or abs(hi) * 0.1 or 1.0
        return cls(name, lo - air, hi + air)

    def place(self, value: float, start: float, end: float) -> float:
        """Where `value` is between `start` and `end`."""
        part = (min(max(value, self.lo), self.hi) - self.lo) / ((self.hi - self.lo) or 1.0)
        return round(start + part * (end - start), 1)


@dataclass(frozen=True)
class Series:
    """Points of a chart, drawn as one line, as a line with dots, or as dots alone."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["line", "dotted", "dots"] = "line"


@dataclass(frozen=True)
class Chart:
    """An empty plot with its axes, to draw into."""

    title: str
    description: str
    x: Axis
    y: Axis
    svg: Element = field(repr=False)

    @classmethod
    def empty(cls, title: str, description: str, x: Axis, y: Axis) -> Chart:
        """A plot with grid, ticks and names."""
        chart = cls(title, description, x, y, _svg(title, description, WIDTH, HEIGHT, "chart"))
        for value in ticks(x):
            at = chart.at_x(value)
            _line(chart.svg, (at, TOP), (at, HEIGHT - BOTTOM), "grid")
            _text(chart.svg, at, HEIGHT - BOTTOM + 13, tick(value), "tick middle")
        for value in ticks(y):
            at = chart.at_y(value)
            _line(chart.svg, (LEFT, at), (WIDTH - RIGHT, at), "grid")
            _text(chart.svg, LEFT - 6, at + 3.5, tick(value), "tick end")
        _text(chart.svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.name, "axis middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        name = _text(chart.svg, 10, middle, y.name, "axis middle")
        name.set("transform", f"rotate(-90 10 {middle:g})")
        return chart

    def at_x(self, value: float) -> float:
        """From left."""
        return self.x.place(value, LEFT, WIDTH - RIGHT)

    def at_y(self, value: float) -> float:
        """From the top."""
        return self.y.place(value, HEIGHT - BOTTOM, TOP)

    def reference(self, start: tuple[float, float], end: tuple[float, float]) -> Chart:
        """A dashed line to compare with."""
        _line(self.svg, (self.at_x(start[0]), self.at_y(start[1])), (self.at_x(end[0]), self.at_y(end[1])), "reference")
        return self

    def draw(self, series: Sequence[Series]) -> Chart:
        """Draw these, each in its colour."""
        for number, one in enumerate(series):
            points = [(self.at_x(x), self.at_y(y)) for x, y in zip(one.x, one.y, strict=True)]
            if one.kind != "dots":
                _sub(self.svg, "polyline", f"line c{number}", points=" ".join(f"{x:g},{y:g}" for x, y in points))
            if one.kind != "line":
                size = "3" if one.kind == "dotted" else "1.8"
                for x, y in points:
                    _sub(self.svg, "circle", f"dot c{number}", cx=f"{x:g}", cy=f"{y:g}", r=size)
        return self

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> Chart:
        """Shade what is between `low` and `high`."""
        there = [(self.at_x(a), self.at_y(b)) for a, b in zip(x, high, strict=True)]
        back = [(self.at_x(a), self.at_y(b)) for a, b in zip(x, low, strict=True)][::-1]
        _sub(self.svg, "polygon", "band", points=" ".join(f"{a:g},{b:g}" for a, b in there + back))
        return self

    def columns(self, edges: Sequence[float], counts: Sequence[float]) -> Chart:
        """A histogram."""
        floor = self.at_y(0)
        for lo, hi, height in zip(edges, edges[1:], counts, strict=False):
            left, right, top = self.at_x(lo), self.at_x(hi), self.at_y(height)
            width = max(0.5, right - left - 0.8)
            _sub(self.svg, "rect", "bar", x=f"{left:g}", y=f"{top:g}", width=f"{width:g}", height=f"{floor - top:g}")
        return self

    def markup(self) -> Markup:
        """The chart as it stands in a page."""
        return _markup(self.svg)


def ticks(axis: Axis) -> list[float]:
    """Round values on an axis, about `TICKS` of them."""
    rough = (axis.hi - axis.lo) / TICKS or 1.0
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(axis.lo / step - 1e-9)
    last = math.floor(axis.hi / step + 1e-9)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def heat_map(title: str, description: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix: a row a true class, a column a predicted one; shaded by the share of the row."""
    left, top = 34 + 6.2 * min(LONGEST_LABEL, max(map(len, labels))), 40.0
    size = min(116.0, (WIDTH - left - 4) / len(labels))
    svg = _svg(title, description, WIDTH, top + size * len(labels) + 6, "chart")
    _text(svg, left + size * len(labels) / 2, 12, "predicted", "axis middle")
    name = _text(svg, 12, top + size * len(labels) / 2, "true", "axis middle")
    name.set("transform", f"rotate(-90 12 {top + size * len(labels) / 2:g})")
    for row, (label, of_label) in enumerate(zip(labels, counts, strict=True)):
        total = sum(of_label) or 1
        _text(svg, left - 8, top + size * (row + 0.5) + 4, _short(label, LONGEST_LABEL), "tick end")
        _text(svg, left + size * (row + 0.5), top - 8, _short(label, max(2, int(size / 6.5))), "tick middle")
        for column, times in enumerate(of_label):
            x, y, part = left + size * column, top + size * row, times / total
            shade = _sub(svg, "rect", "right" if row == column else "wrong", x=f"{x + 1:g}", y=f"{y + 1:g}")
            shade.set("width", f"{size - 2:g}")
            shade.set("height", f"{size - 2:g}")
            shade.set("fill-opacity", f"{0.06 + 0.94 * part:.3f}")
            dark = "cell strong middle" if part > 0.55 else "cell middle"
            if size >= 44:
                _text(svg, x + size / 2, y + size / 2, number(times), dark)
                _text(svg, x + size / 2, y + size / 2 + 14, share(part), f"{dark} small")
            elif times:
                _text(svg, x + size / 2, y + size / 2 + 3, f"{part * 100:.0f}", f"{dark} small")
    return _markup(svg)


def bars(title: str, description: str, values: Sequence[tuple[str, float, float]], name: str) -> Markup:
    """Horizontal bars of (name, value, spread), each with a stroke from value - spread to value + spread."""
    axis = Axis(name, min(0.0, *(v - s for _, v, s in values)), max(1e-9, *(v + s for _, v, s in values)))
    height = BAR_HEIGHT * len(values) + 34
    svg = _svg(title, description, BAR_WIDTH, height, "chart wide")
    for value in ticks(axis):
        at = axis.place(value, BAR_NAME, BAR_WIDTH - 70)
        _line(svg, (at, 0), (at, height - 32), "grid")
        _text(svg, at, height - 19, tick(value), "tick middle")
    _text(svg, (BAR_NAME + BAR_WIDTH - 70) / 2, height - 4, name, "axis middle")
    zero = axis.place(0, BAR_NAME, BAR_WIDTH - 70)
    for row, (label, value, spread) in enumerate(values):
        y, end = BAR_HEIGHT * row, axis.place(value, BAR_NAME, BAR_WIDTH - 70)
        _text(svg, BAR_NAME - 10, y + BAR_HEIGHT / 2 + 4, _short(label), "name end")
        bar = _sub(svg, "rect", "bar", x=f"{min(zero, end):g}", y=f"{y + 4:g}", width=f"{abs(end - zero):g}")
        bar.set("height", f"{BAR_HEIGHT - 8:g}")
        ends = [axis.place(value + sign * spread, BAR_NAME, BAR_WIDTH - 70) for sign in (-1, 1)]
        _line(svg, (ends[0], y + BAR_HEIGHT / 2), (ends[1], y + BAR_HEIGHT / 2), "spread")
        _text(svg, max(ends[1], zero) + 8, y + BAR_HEIGHT / 2 + 4, number(value, 3), "tick")
    return _markup(svg)


def spark(counts: Sequence[float]) -> Markup:
    """A tiny histogram, a picture of what stands beside it as figures."""
    svg = _hidden(96, 22, "spark")
    top, width = max(counts, default=0) or 1, 96 / max(1, len(counts))
    for number, height in enumerate(counts):
        tall = round(22 * height / top, 1)
        _sub(svg, "rect", "bar", x=f"{number * width:.1f}", y=f"{22 - tall:g}", width=f"{width - 1:.1f}").set(
            "height", f"{tall:g}"
        )
    return _markup(svg)


def whisker(axis: Axis, value: float, ends: tuple[float, float] | None, reference: float | None) -> Markup:
    """A value on its interval, and where something to compare with is: a picture of figures that stand beside it."""
    svg = _hidden(180, 16, "whisker")
    _line(svg, (4, 8), (176, 8), "grid")
    if reference is not None:
        at = axis.place(reference, 4, 176)
        _line(svg, (at, 2), (at, 14), "mark")
    if ends is not None:
        _line(svg, (axis.place(ends[0], 4, 176), 8), (axis.place(ends[1], 4, 176), 8), "spread")
    _sub(svg, "circle", "dot c0", cx=f"{axis.place(value, 4, 176):g}", cy="8", r="3.5")
    return _markup(svg)


def _svg(title: str, description: str, width: float, height: float, kind: str) -> Element:
    number = f"{crc32(title.encode()):x}"  # titles differ, and a card is the same whenever it is drawn
    svg = Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "class": kind, "role": "img"})
    svg.set("aria-labelledby", f"title-{number} about-{number}")
    SubElement(svg, "title", {"id": f"title-{number}"}).text = title
    SubElement(svg, "desc", {"id": f"about-{number}"}).text = description
    return svg


def _hidden(width: float, height: float, kind: str) -> Element:
    return Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "class": kind, "aria-hidden": "true"})


def _sub(svg: Element, tag: str, kind: str, **attributes: str) -> Element:
    return SubElement(svg, tag, {"class": kind, **attributes})


def _line(svg: Element, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    _sub(svg, "line", kind, x1=f"{start[0]:g}", y1=f"{start[1]:g}", x2=f"{end[0]:g}", y2=f"{end[1]:g}")


def _text(svg: Element, x: float, y: float, text: str, kind: str) -> Element:
    element = _sub(svg, "text", kind, x=f"{x:g}", y=f"{y:g}")
    element.text = text
    return element


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _markup(svg: Element) -> Markup:
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


# --- numbers, shares, times and durations as a card writes them

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def number(value: Any, digits: int = 4) -> str:
    """A number with so many digits, whole ones with all of theirs: `0.7492`, `70 120`."""
    if value is None or isinstance(value, str):
        return value or NONE
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}".replace(",", THIN)
    elif abs(value) >= 10**digits:
        text = f"{value:,.0f}".replace(",", THIN)
    elif 0.01 <= abs(value) < 1:
        text = f"{value:.{digits}f}"  # as many decimals each, so that a column is aligned
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def tick(value: float) -> str:
    """A round number on an axis, as short as it can be: `0.2`, `1 500`."""
    text = f"{value:,.0f}".replace(",", THIN) if abs(value) >= 1000 else f"{value:g}"
    return text.replace("-", MINUS)


def share(value: float) -> str:
    """A share in percent: `0 %`, `0.3 %`, `41 %`; what is not all and not nothing never looks so."""
    if value in (0, 1):
        return f"{value * 100:.0f}{THIN}%"
    percent = min(max(value * 100, 0.01), 99.9)
    return f"{percent:.2g}{THIN}%" if percent < 10 else f"{percent:.3g}{THIN}%"


def moment(text: str) -> str:
    """An ISO time to the second, `2013-03-31 21:05:00 UTC`, without a time of day that is midnight."""
    if not text:
        return NONE
    at = datetime.fromisoformat(text)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def seconds(value: float) -> str:
    """A duration: `0.3 ms`, `12 ms`, `4.2 s`, `3 min 20 s`."""
    if value < 1:
        return f"{value * 1000:.2g}{THIN}ms"
    if value < 60:
        return f"{value:.3g}{THIN}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{THIN}min {rest}{THIN}s"
