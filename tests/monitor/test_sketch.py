"""The sketch against its oracle: all values in order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor import windows
from services.monitor.windows import LONGEST_MS

LATENCIES = st.floats(0, LONGEST_MS) | st.floats(0.01, 100)
ROUNDING = 1 + 1e-9


@given(st.lists(LATENCIES, min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_within_one_percent_of_the_exact_nearest_rank(values: list[float], percent: int) -> None:
    exact = sorted(values)[-(-len(values) * percent // 100) - 1]
    (found,) = windows.percentiles(Counter(map(windows.bucket, values)), [percent])
    assert (
        abs(found - exact) <= windows.RELATIVE_ERROR * max(exact, windows.SMALLEST_MS) * ROUNDING + windows.SMALLEST_MS
    )


@given(st.lists(LATENCIES), st.lists(LATENCIES))
def test_adding_two_sketches_is_sketching_all_their_values(some: list[float], others: list[float]) -> None:
    added = Counter(map(windows.bucket, some)) + Counter(map(windows.bucket, others))
    assert added == Counter(map(windows.bucket, some + others))


@given(st.lists(LATENCIES))
def test_a_sketch_comes_back_from_its_text(values: list[float]) -> None:
    made = Counter(map(windows.bucket, values))
    assert windows.from_text(windows.to_text(made)) == made


def test_the_text_is_readable_and_in_order() -> None:
    assert windows.to_text(Counter({40: 1, -12: 3})) == "-12:3 40:1"


def test_the_number_of_buckets_is_bounded() -> None:
    assert windows.bucket(LONGEST_MS) - windows.bucket(0) < 2000


def test_an_empty_sketch_has_no_percentiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        windows.percentiles(Counter(), [50])
