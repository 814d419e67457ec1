from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from ddsketch.mapping import LogarithmicMapping
from hypothesis import given
from hypothesis import strategies as st

from modelmill.columns.sketch import OFFSET, RELATIVE_ERROR, Sketch

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5).map(float)
PERCENTS = (1, 25, 50, 75, 99, 100)


def sketch(values: list[float]) -> Sketch:
    return Sketch.of(np.array(values, np.float64))


@given(st.lists(NUMBERS, min_size=1))
def test_a_percentile_is_within_the_stated_error_of_the_exact_one(values: list[float]) -> None:
    ordered = sorted(values)
    for percent, found in zip(PERCENTS, sketch(values).percentiles(PERCENTS), strict=True):
        exact = ordered[math.ceil(len(ordered) * percent / 100) - 1]
        if abs(exact) < sys.float_info.min:  # 0, and what has no full precision itself
            assert abs(found) < 1.1 * sys.float_info.min
        elif not math.isinf(found):  # which who knows the largest value corrects
            assert found == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)


@given(st.lists(st.lists(NUMBERS), min_size=1))
def test_the_sketch_of_parts_is_that_of_the_whole(parts: list[list[float]]) -> None:
    whole = sketch([value for part in parts for value in part])
    assert Sketch.merged([sketch(part) for part in parts]) == whole
    assert Sketch.merged([sketch(part) for part in reversed(parts)]) == whole


@given(st.floats(1e-300, 1e300))
def test_the_buckets_are_those_of_the_library(value: float) -> None:
    [bucket] = sketch([value]).buckets.tolist()
    assert bucket - OFFSET == pytest.approx(LogarithmicMapping(RELATIVE_ERROR).key(value), abs=1)  # at an edge


def test_buckets_are_in_the_order_of_the_values() -> None:
    values = [-1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e300]
    assert sketch(values[::-1]).middles() == pytest.approx(values, rel=RELATIVE_ERROR * 1.001)


@given(st.lists(NUMBERS))
def test_it_is_the_same_after_json(values: list[float]) -> None:
    assert Sketch.from_json(sketch(values).to_json()) == sketch(values)


def test_of_no_values_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="the sketch is empty"):
        sketch([]).percentiles([50])


def test_a_histogram_counts_each_value_once_the_outer_ones_at_the_ends() -> None:
    edges = np.array([0.0, 1.0, 2.0])
    assert sketch([-5.0, 0.0, 0.5, 1.5, 1.5, 9.0]).histogram(edges) == [3, 3]
