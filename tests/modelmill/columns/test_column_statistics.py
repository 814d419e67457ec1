from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelmill.columns import statistics
from modelmill.columns.sketch import Sketch
from modelmill.columns.statistics import ColumnStatistics, Numbers, TopValues

FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=1, max_size=30)
TOLERANCE = 1e-9
"""Of mean and std, as a share of the largest absolute value."""


def numbers(values: list[float]) -> Numbers:
    return Numbers.of(np.array(values, np.float64), min(values), max(values))


def top(values: list[str]) -> TopValues:
    """What is kept of some values, of which not all may be counted."""
    return TopValues.merged([TopValues(dict(Counter(values))), TopValues()])


def column(dtype: str = "float", nulls: int = 0, values: list[float] | None = None) -> ColumnStatistics:
    return ColumnStatistics(dtype, len(values or []), nulls, numbers(values) if values else None, None)


# --- moments


@given(FLOATS)
def test_mean_and_std_are_those_of_the_exact_numbers(values: list[float]) -> None:
    largest = max(map(abs, values)) or 1.0
    shares = [value / largest for value in values]
    mean = math.fsum(shares) / len(shares)
    std = math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / len(shares))
    found = numbers(values)
    assert found.mean / largest == pytest.approx(mean, abs=TOLERANCE)
    assert found.std / largest == pytest.approx(std, abs=TOLERANCE)


@given(st.lists(FLOATS, min_size=1, max_size=5))
@example([[0.0, 227137.0], [-82942.0]])  # parts whose std is less than that of the whole
def test_numbers_of_parts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    merged = Numbers.merged([numbers(part) for part in parts])
    whole = numbers([value for part in parts for value in part])
    assert (merged.count, merged.min, merged.max, merged.sketch) == (whole.count, whole.min, whole.max, whole.sketch)
    largest = max(abs(whole.min), abs(whole.max)) or 1.0
    assert merged.mean / largest == pytest.approx(whole.mean / largest, abs=TOLERANCE)
    assert merged.std / largest == pytest.approx(whole.std / largest, abs=TOLERANCE)


@pytest.mark.parametrize(
    "values", [[sys.float_info.max, -sys.float_info.max], [sys.float_info.max] * 3, [5e-324], [0.0]]
)
def test_the_largest_and_smallest_floats_have_finite_moments(values: list[float]) -> None:
    merged = Numbers.merged([numbers(values), numbers(values)])
    for found in (numbers(values), merged):
        assert all(map(math.isfinite, (found.mean, found.std, *found.percentiles(), *found.edges().tolist())))


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    values = [1e9 + 0.001 * n for n in range(1000)]
    assert Numbers.merged([numbers(values[:300]), numbers(values[300:])]).std == pytest.approx(np.std(values), rel=1e-3)


@given(st.lists(st.integers(-200, 200), min_size=1))
def test_percentiles_of_small_whole_numbers_are_exact(values: list[int]) -> None:
    found = Numbers.of(np.array(values, np.float64), min(values), max(values)).percentiles([50])[0]
    exact = sorted(values)[math.ceil(len(values) / 2) - 1]
    assert found == (exact if abs(exact) < 48 else pytest.approx(exact, rel=0.0101))


# --- most frequent values


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), min_size=1, max_size=5), st.integers(1, 9))
def test_counts_are_off_by_at_most_the_stated_error(parts: list[list[str]], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "MAX_TOP", limit)
        merged = TopValues.merged([top(part) for part in parts])
    exact = Counter(value for part in parts for value in part)
    assert len(merged.counts) <= limit
    for value, count in exact.items():
        assert 0 <= count - merged.counts.get(value, 0) <= merged.error
    if len(exact) <= limit:
        assert (merged.counts, merged.error) == (exact, 0)


def test_they_are_listed_by_count_and_equal_ones_by_value() -> None:
    merged = TopValues.merged([TopValues({"b": 1, "a": 1}), TopValues({"c": 2, "a": 1})])
    assert list(merged.counts.items()) == [("a", 2), ("c", 2), ("b", 1)]


# --- columns


@pytest.mark.parametrize(
    "statistics",
    [
        column(values=[1.5, -2.0, 0.0], nulls=2),
        column(nulls=3),
        ColumnStatistics(
            "int", 2, 0, Numbers.of(np.array([1.0, 1e18]), 1, 10**18 - 1), TopValues({1: 1, 10**18 - 1: 1})
        ),
        ColumnStatistics("bool", 3, 1, None, TopValues({True: 2, False: 1})),
        ColumnStatistics("str", 2, 0, None, TopValues({"ü": 2}, 7)),
    ],
)
def test_they_are_the_same_after_json(statistics: ColumnStatistics) -> None:
    assert ColumnStatistics.from_json(orjson.loads(orjson.dumps(statistics.to_json()))) == statistics


def test_a_column_that_was_declared_anew_counts_with_its_last_type() -> None:
    merged = ColumnStatistics.merged([column("int", nulls=5), column("float", nulls=1), column("float", nulls=2)])
    assert (merged.dtype, merged.nulls) == ("float", 3)


def test_an_answer_has_what_the_column_has() -> None:
    shown = column(values=[float(n) for n in range(1, 101)], nulls=4).answer(detail=True)
    assert (shown["count"], shown["nulls"], shown["mean"], shown["min"], shown["max"]) == (100, 4, 50.5, 1.0, 100.0)
    assert shown["p50"] == pytest.approx(50, rel=0.01)
    assert len(shown["histogram"]["edges"]) == len(shown["histogram"]["counts"]) + 1
    assert sum(shown["histogram"]["counts"]) == 100
    assert "top" not in shown


def test_an_answer_of_text_lists_the_most_frequent_values() -> None:
    shown = ColumnStatistics("str", 3, 0, None, TopValues({"a": 2, "b": 1})).answer(detail=True)
    assert shown["top"] == [{"value": "a", "count": 2}, {"value": "b", "count": 1}]
    assert "histogram" not in shown


def test_without_values_there_are_only_counts() -> None:
    assert column(nulls=3).answer(detail=True) == {"dtype": "float", "count": 0, "nulls": 3}


def test_a_histogram_of_one_value_has_one_bin() -> None:
    shown = column(values=[2.0, 2.0]).answer(detail=True)
    assert shown["histogram"] == {"edges": [2.0, 2.0], "counts": [2]}


def test_they_can_be_used_without_flask_and_redis() -> None:
    code = "import sys, modelmill.columns.statistics; print({'flask', 'redis', 'pyarrow', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def typical(day: int) -> dict[str, ColumnStatistics]:
    """A day of a typical source: eight measures, a small number, a text."""
    generator = np.random.default_rng(day)
    found: dict[str, Any] = {f"x{n}": column(values=generator.normal(0, 100, 1000).tolist()) for n in range(8)}
    small = generator.integers(0, 60, 1000)
    counts: TopValues = TopValues({int(v): int((small == v).sum()) for v in np.unique(small)})
    found["n"] = ColumnStatistics("int", 1000, 0, Numbers.of(small.astype(float), 0, 59), counts)
    found["name"] = ColumnStatistics(
        "str", 1000, 0, None, TopValues({f"name {v}": c for v, c in counts.counts.items()})
    )
    return found


def test_a_year_of_days_merges_without_losing_its_sketch() -> None:
    days = [typical(day) for day in range(365)]
    merged = ColumnStatistics.merged([day["x0"] for day in days])
    assert merged.count == 365_000
    assert isinstance(merged.numbers, Numbers)
    assert isinstance(merged.numbers.sketch, Sketch)
