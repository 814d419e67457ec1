"""The latencies of a window against their oracle: all values in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.columns.sketch import RELATIVE_ERROR, Sketch
from services.monitor.windows import LONGEST_MS, SMALLEST_MS, Window
from tests.monitor.events import served

LATENCIES = st.floats(0, LONGEST_MS) | st.floats(0.01, 100)
ROUNDING = 1 + 1e-9


def sketch(values: list[float]) -> Sketch:
    return Window.of([served(value) for value in values]).sketch


@given(st.lists(LATENCIES, min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_within_one_percent_of_the_exact_nearest_rank(values: list[float], percent: int) -> None:
    exact = sorted(values)[-(-len(values) * percent // 100) - 1]
    (found,) = sketch(values).percentiles([percent])
    assert abs(found - exact) <= RELATIVE_ERROR * max(exact, SMALLEST_MS) * ROUNDING + SMALLEST_MS


@given(st.lists(LATENCIES), st.lists(LATENCIES))
def test_adding_two_sketches_is_sketching_all_their_values(some: list[float], others: list[float]) -> None:
    assert Sketch.merged([sketch(some), sketch(others)]) == sketch(some + others)


@given(st.lists(LATENCIES))
def test_a_sketch_comes_back_from_its_text(values: list[float]) -> None:
    assert Sketch.from_text(sketch(values).to_text()) == sketch(values)


def test_the_text_is_readable_and_in_order() -> None:
    assert sketch([2.2, 0.8, 0.8, 0.8]).to_text() == "39989:3 40040:1"


def test_the_number_of_buckets_is_bounded() -> None:
    smallest, largest = sketch([0, LONGEST_MS]).buckets
    assert largest - smallest < 2000


def test_an_empty_sketch_has_no_percentiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        sketch([]).percentiles([50])
