from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill import times, windows
from modelmill.state.online import TileReader
from modelmill.windows import Reading, Scalar, Tile, deviation, exactly, finish, hashed, partials

NUMBERS = st.floats(-(2.0**480), 2.0**480)


def t(text: str) -> int:
    return times.micros(datetime.fromisoformat(f"2013-01-31T{text}Z"))


def reading(function: str = "sum", dtype: str = "float") -> Reading:
    return Reading(function, "x", dtype, window=900, hop=300, available_after=0)


@pytest.mark.parametrize(
    "at, delay, end",
    [("05:00", 0, "05:00"), ("04:59:59.999999", 0, "04:55"), ("05:00", 1, "04:55"), ("05:07", 120, "05:05")],
)
def test_a_window_ends_at_the_last_edge_before_what_is_known(at: str, delay: int, end: str) -> None:
    assert windows.window_end(t(at), 300, delay) == t(end)


def test_edges_are_aligned_to_1970_also_before_it() -> None:
    assert windows.window_end(-1, 86_400, 0) == -86_400 * windows.SECOND


def test_the_tiles_of_a_window_are_named_by_their_start() -> None:
    assert reading().fields(t("05:03")) == ("2013-01-31T04:45Z", "2013-01-31T04:50Z", "2013-01-31T04:55Z")


def test_a_time_before_the_year_1000_is_as_wide_as_any() -> None:
    moment = datetime(1000, 1, 1, tzinfo=UTC)
    assert windows.tile_field(times.micros(moment) - 60 * windows.SECOND) == "0999-12-31T23:59Z"
    assert times.iso(times.moment(times.micros(moment))) == "1000-01-01T00:00:00.000000Z"
    assert times.moment(times.micros(moment)) == moment


def test_tiles_without_rows_are_left_out() -> None:
    reader = TileReader("g", (Reading("count", "x", "float", window=900, hop=300, available_after=0),))
    assert reader.values([None, '{"x":{"count":1}}', None], 0) == [1]
    assert reader.values([None, None, None], 0) == [0]


EMPTY = {"count": 0, "count_distinct": 0}


@pytest.mark.parametrize("function", windows.FUNCTIONS)
@pytest.mark.parametrize("found", [[], [{"y": {"count": 1}}]], ids=["no tiles", "tiles without the column"])
def test_without_values_counts_are_0_and_others_null(function: str, found: list[Tile]) -> None:
    assert finish(reading(function), found) == EMPTY.get(function)


TILES: dict[str, list[windows.Statistics]] = {
    "float": [
        {
            "count": 2,
            "sum": ["0.1", "1e+16"],
            "squares": ["1e+32", "0.01"],
            "min": "0.1",
            "max": "1e+16",
            "last": ["b", "a", "0.1"],
        },
        {
            "count": 1,
            "sum": ["-1e+16"],
            "squares": ["1e+32"],
            "min": "-1e+16",
            "max": "-1e+16",
            "last": ["a", "z", "-1e+16"],
        },
    ],
    "int": [
        {
            "count": 1,
            "sum": ["1e+17", "1"],
            "min": "100000000000000001",
            "max": "100000000000000001",
            "last": ["a", "b", "100000000000000001"],
        },
        {"count": 1, "sum": ["2"], "min": "2", "max": "2", "last": ["a", "a", "2"]},
    ],
    "bool": [{"count": 1, "sum": ["1"], "min": "true", "max": "true", "last": ["a", "a", "true"]}],
    "str": [{"count": 1, "last": ["a", "a", "12"]}],
}


@pytest.mark.parametrize(
    "dtype, function, value",
    [
        *(("float", "sum", 0.1), ("float", "mean", 0.1 / 3), ("float", "min", -1e16), ("float", "max", 1e16)),
        *(("float", "count", 3), ("float", "last", 0.1), ("float", "std", 1e16)),
        *(("int", "sum", 100000000000000003), ("int", "mean", 5e16), ("int", "max", 100000000000000001)),
        *(("int", "last", 100000000000000001), ("bool", "sum", 1), ("bool", "max", True), ("bool", "mean", 1.0)),
        *(("bool", "last", True), ("str", "last", "12")),
    ],
)
def test_a_value_is_made_of_all_tiles(dtype: str, function: str, value: Scalar) -> None:
    found = finish(reading(function, dtype), [{"x": statistics} for statistics in TILES[dtype]])
    assert repr(found) == repr(value)


def test_a_number_too_large_to_add_makes_a_sum_null() -> None:
    statistics = {"count": 2, "sum": ["1.0"], "squares": ["1.0"], "huge": 1}
    assert [finish(reading(function), [{"x": statistics}]) for function in ("sum", "mean", "std")] == [None] * 3


def test_a_sum_of_whole_numbers_that_64_bits_cannot_hold_is_null() -> None:
    largest, above = str(2**62 + 2**61), str(2**61)
    assert finish(reading(dtype="int"), [{"x": {"sum": [largest, "5"]}}]) == 2**62 + 2**61 + 5
    assert finish(reading(dtype="int"), [{"x": {"sum": [largest, above]}}]) is None


def kmv(values: range) -> Tile:
    return {"x": {"distinct": sorted(f"{hashed(str(value)):016x}" for value in values)[: windows.SMALLEST]}}


@pytest.mark.parametrize("count", [1, 255])
def test_few_distinct_values_are_counted_exactly_across_tiles(count: int) -> None:
    found = [kmv(range(start, min(start + 20, count))) for start in range(0, count, 10)]
    assert finish(reading("count_distinct", "int"), found) == count


@pytest.mark.parametrize("count", [1_000, 100_000])
@pytest.mark.parametrize("parts", [1, 7, 50])
def test_many_distinct_values_are_estimated_alike_however_they_are_split(count: int, parts: int) -> None:
    found = [kmv(range(part, count, parts)) for part in range(parts)]
    whole = finish(reading("count_distinct", "int"), [kmv(range(count))])
    assert finish(reading("count_distinct", "int"), [*found, *found]) == whole
    assert isinstance(whole, int)
    assert abs(whole / count - 1) < 3 / math.sqrt(windows.SMALLEST - 2)


@given(st.lists(NUMBERS, min_size=1))
def test_partials_and_sums_are_exact(numbers: list[float]) -> None:
    n, k = exactly(numbers)
    total = sum(map(Fraction, numbers))
    assert Fraction(n, 2**k) == total
    assert sum(map(Fraction, partials(n, k))) == total


def test_a_deviation_does_not_cancel() -> None:
    values = [1e9 + step for step in (0.25, 0.5, 0.75)]
    squares = sum(Fraction(value) ** 2 for value in values)
    assert deviation(3, exactly(values), (squares.numerator, squares.denominator.bit_length() - 1)) == 0.25


@given(st.lists(st.one_of(st.booleans(), st.integers(), NUMBERS, st.text()), min_size=1))
def test_a_value_reads_back_as_it_was(values: list[float | int | str | bool]) -> None:
    for value in values:
        text = windows.value_text(value)
        assert repr(windows.TYPES[type(value).__name__].read(text)) == repr(value)
        if type(value) is float:
            assert repr(orjson.loads(text)) == repr(value)
