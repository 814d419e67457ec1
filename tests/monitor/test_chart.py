"""The charts stay within their box, whatever the figures are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.monitor.page import HEIGHT, WIDTH, bars, lines

FIGURES = st.floats(0, 1e9)


def test_the_largest_value_is_as_high_as_the_chart() -> None:
    assert [bar.height for bar in bars([1, 2])] == [HEIGHT / 2, HEIGHT]


def test_a_line_breaks_where_there_is_no_value() -> None:
    assert len(lines([1, 2, None, 3, 4])) == 2


def test_a_lonely_value_is_a_level_stroke() -> None:
    ((first, second),) = [points.split() for points in lines([None, 5, None])]
    assert first.split(",")[1] == second.split(",")[1]
    assert first != second


def test_no_values_make_no_line() -> None:
    assert lines([None, None]) == []


@given(st.lists(FIGURES, max_size=60))
def test_bars_stay_in_the_box(values: list[float]) -> None:
    for bar in bars(values):
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
        assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT + 0.1


@given(st.lists(FIGURES | st.none(), max_size=60))
def test_lines_stay_in_the_box(values: list[float | None]) -> None:
    for points in lines(values):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
