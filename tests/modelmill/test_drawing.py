"""Charts: well-formed, told to those who do not see them, safe with any name."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from modelmill import drawing
from modelmill.drawing import Axis, Chart, Series, ticks

HOSTILE = "<script>alert(1)</script>"


def chart(title: str = "ROC curve") -> Chart:
    return Chart.empty(title, "Area 0.75", Axis("x", 0, 1), Axis("y", 0, 2))


@pytest.mark.parametrize(
    "lo, hi, expected",
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.3, 0.31, [-0.2, 0, 0.2]),
        (0, 1234, [0, 250, 500, 750, 1000]),
        (1e6, 1e6, []),
        (0, 1e-7, [0, 2e-8, 4e-8, 6e-8, 8e-8, 1e-7]),
    ],
)
def test_ticks_are_round(lo: float, hi: float, expected: list[float]) -> None:
    assert [tick for tick in ticks(Axis("", lo, hi)) if lo < hi] == expected


def test_points_lie_where_they_belong() -> None:
    svg = ElementTree.fromstring(chart().draw([Series("a", [0, 1], [0, 2])]).markup())
    [line] = svg.findall("polyline")
    left, bottom, right, top = 50, drawing.HEIGHT - 38, drawing.WIDTH - 10, 10
    assert line.get("points") == f"{left},{bottom:g} {right:g},{top}"


def test_what_is_beyond_an_axis_is_at_its_end() -> None:
    assert Axis("", 0, 1).place(7, 0, 100) == 100
    assert Axis("", 3, 3).place(3, 0, 100) == 0


def test_a_chart_says_what_it_shows() -> None:
    svg = ElementTree.fromstring(chart().markup())
    assert svg.get("role") == "img"
    named = svg.get("aria-labelledby", "").split()
    title, description = svg.find("title"), svg.find("desc")
    assert title is not None
    assert description is not None
    assert named == [title.get("id"), description.get("id")]
    assert (title.text, description.text) == ("ROC curve", "Area 0.75")


@pytest.mark.parametrize(
    "markup",
    [
        chart(HOSTILE).draw([Series(HOSTILE, [0.5], [1], "dots")]).markup(),
        drawing.heat_map(HOSTILE, HOSTILE, [HOSTILE, "b"], [[1, 2], [0, 4]]),
        drawing.bars(HOSTILE, HOSTILE, [(HOSTILE, 1.0, 0.1)], HOSTILE),
    ],
)
def test_any_name_is_text(markup: str) -> None:
    assert "<script" not in markup
    ElementTree.fromstring(markup)


def test_a_heat_map_writes_counts_and_shares_while_there_is_room() -> None:
    few = drawing.heat_map("c", "", ["a", "b"], [[90, 10], [0, 0]])
    assert ">90<" in few
    assert "10\N{NARROW NO-BREAK SPACE}%" in few
    many = drawing.heat_map("c", "", [f"class {n}" for n in range(12)], [[1] * 12] * 12)
    assert many.count(">8</text>") == 144  # percent


def test_bars_of_nothing_and_below_nothing_are_drawn() -> None:
    svg = ElementTree.fromstring(drawing.bars("b", "", [("a", 0.0, 0.0), ("b", -1.0, 0.0)], "fall"))
    widths = [float(bar.get("width", "")) for bar in svg.findall("rect")]
    assert widths[0] == 0
    assert widths[1] > 100


def test_small_pictures_are_left_to_the_figures_beside_them() -> None:
    assert 'aria-hidden="true"' in drawing.spark([1, 2, 0])
    assert 'aria-hidden="true"' in drawing.whisker(Axis("", 0, 1), 0.5, None, None)
    assert drawing.whisker(Axis("", 0, 1), 0.5, (0.2, 0.6), 0.5).count("<line") == 3
