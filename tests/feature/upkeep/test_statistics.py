from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.columns.statistics import ColumnStatistics, Numbers
from services.feature.rows.schema import TIME
from services.feature.upkeep import statistics as module
from services.feature.upkeep.statistics import FileStatistics

NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)
JANUARY, FEBRUARY = date(2013, 1, 31), date(2013, 2, 1)
SCHEMA = pa.schema([("user_id", pa.string()), ("x", pa.float64()), ("n", pa.int64()), ("flag", pa.bool_()),
                    ("name", pa.string()), ("_event_time", TIME), ("_failed", pa.string())])  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    blank = dict.fromkeys(SCHEMA.names) | {"_event_time": NOON}
    return pa.Table.from_pylist([blank | row for row in rows], SCHEMA)


def of(*rows: dict[str, Any]) -> FileStatistics:
    return FileStatistics.of(table(*rows), ["user_id"])


def test_values_and_missing_values_are_counted_by_event_day() -> None:
    found = of({"x": 1.0}, {"x": None, "_event_time": NOON + timedelta(hours=12)}, {"x": 3.0}, {"x": None})
    assert {day: (columns["x"].count, columns["x"].nulls) for day, columns in found.days.items()} == {
        JANUARY: (2, 1),
        FEBRUARY: (0, 1),
    }
    assert found.days[JANUARY]["x"].answer(detail=False)["mean"] == 2.0


@pytest.mark.parametrize(
    "moment, day",
    [
        (datetime(2013, 1, 31, tzinfo=UTC), JANUARY),
        (datetime(2013, 1, 31, 23, 59, 59, 999999, tzinfo=UTC), JANUARY),
        (datetime(1969, 12, 31, 23, tzinfo=UTC), date(1969, 12, 31)),
        (datetime(1001, 1, 1, 1, tzinfo=UTC), date(1001, 1, 1)),
    ],
)
def test_a_day_is_one_of_utc_also_before_1970(moment: datetime, day: date) -> None:
    assert list(of({"x": 1.0, "_event_time": moment}).days) == [day]


def test_columns_are_described_and_keys_and_marks_are_not() -> None:
    assert list(of({"user_id": "u"}).days[JANUARY]) == ["x", "n", "flag", "name"]


def test_whole_numbers_are_exact_at_the_ends() -> None:
    found = of({"n": 10**18 - 1}, {"n": None}, {"n": 1 - 10**18}).days[JANUARY]["n"]
    assert found.numbers is not None
    assert (found.numbers.min, found.numbers.max) == (1 - 10**18, 10**18 - 1)


@pytest.mark.parametrize(
    "name, values, counts",
    [
        ("n", [3, 1, 3, None, 2], {3: 2, 1: 1, 2: 1}),
        ("flag", [True, False, True, None], {True: 2, False: 1}),
        ("name", ["b", "ü", "b", None, ""], {"b": 2, "": 1, "ü": 1}),
        ("name", [None], {}),
    ],
)
def test_the_most_frequent_values_are_exact_and_in_order(name: str, values: list[Any], counts: dict[Any, int]) -> None:
    top = of(*({name: value} for value in values)).days[JANUARY][name].top
    assert top is not None
    assert (list(top.counts.items()), top.error) == (list(counts.items()), 0)


def test_above_a_thousand_values_the_error_is_stated() -> None:
    rows = [{"n": number} for number in range(1001)] * 2 + [{"n": 7}]
    top = of(*rows).days[JANUARY]["n"].top
    assert top is not None
    assert (len(top.counts), top.counts[7], top.error) == (1000, 3, 2)


def test_a_long_text_is_counted_under_its_beginning_and_told_from_others() -> None:
    top = of({"name": "a" * 5000}, {"name": "a" * 5000}, {"name": "a" * 5001}).days[JANUARY]["name"].top
    assert top is not None
    assert list(top.counts.values()) == [2, 1]
    assert all(len(str(value)) < 220 for value in top.counts)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_counts_as_missing(value: float) -> None:
    found = of({"x": value}, {"x": 1.0}).days[JANUARY]["x"]
    assert (found.count, found.nulls) == (1, 1)


def test_the_newest_event_time_is_known() -> None:
    assert of({"_event_time": NOON + timedelta(days=3)}, {}).newest == "2013-02-03T12:00:00.000000Z"
    assert FileStatistics.of(SCHEMA.empty_table()) == FileStatistics("", {})


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "x": st.none() | st.floats(-1e6, 1e6),
            "n": st.none() | st.integers(-9, 9),
            "name": st.none() | st.sampled_from("abc"),
            "_event_time": st.integers(-30, 30).map(lambda hours: NOON + timedelta(hours=hours)),
        }
    ),
    max_size=20,
)


def comparable(statistics: ColumnStatistics) -> Any:
    """Everything in it, the moments to where they are stated to be exact."""
    stored = statistics.to_json()
    moments = [stored.pop(name, None) for name in ("mean", "std")]
    return stored, [moment and pytest.approx(moment, abs=1e-3) for moment in moments]


@given(st.lists(ROWS, max_size=4))
def test_statistics_of_files_merge_to_those_of_all_their_rows(files: list[list[dict[str, Any]]]) -> None:
    merged = FileStatistics.merged([of(*rows) for rows in files])
    whole = of(*(row for rows in files for row in rows))
    assert merged.newest == whole.newest
    assert merged.days.keys() == whole.days.keys()
    for day, columns in whole.days.items():
        assert {n: comparable(s) for n, s in merged.days[day].items()} == {n: comparable(s) for n, s in columns.items()}


@given(ROWS)
def test_they_are_the_same_after_json(rows: list[dict[str, Any]]) -> None:
    assert FileStatistics.from_json(of(*rows).to_json("s"), "s") == of(*rows)


def test_what_another_layout_stored_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = of({"x": 1.0}).to_json("s")
    monkeypatch.setattr(module, "LAYOUT", 2)
    assert FileStatistics.from_json(stored, "s") is None


def test_what_was_made_of_another_state_of_the_rows_is_not_read() -> None:
    assert FileStatistics.from_json(of({"x": 1.0}).to_json("before"), "after") is None


def test_days_and_columns_are_chosen() -> None:
    found = of({"x": 1.0}, {"x": 2.0, "_event_time": NOON + timedelta(days=1)})
    assert list(found.between(None, None)["x"]) == [JANUARY, FEBRUARY]
    assert list(found.between(FEBRUARY, None)["x"]) == [FEBRUARY]
    assert list(found.between(JANUARY, FEBRUARY)["x"]) == [JANUARY]


def test_of_too_many_days_the_newest_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DAYS", 2)
    rows = [{"x": float(n), "_event_time": NOON + timedelta(days=n)} for n in (2, 0, 1, 2)]
    newest = [FEBRUARY, date(2013, 2, 2)]
    assert list(of(*rows).days) == newest
    assert list(FileStatistics.merged([of(row) for row in rows]).days) == newest


def test_the_share_of_missing_values_is_over_all_days() -> None:
    found = of({"x": 1.0}, {}, {"_event_time": NOON + timedelta(days=1)}, {"x": 1.0})
    assert found.null_share("x") == 0.5
    assert found.null_share("other") is None


def test_numbers_are_of_the_day_alone() -> None:
    found = of({"x": 1.0}, {"x": 100.0, "_event_time": NOON + timedelta(days=1)}, {"x": 3.0})
    numbers = found.days[JANUARY]["x"].numbers
    assert isinstance(numbers, Numbers)
    assert (numbers.mean, numbers.std, numbers.min, numbers.max) == (2.0, 1.0, 1.0, 3.0)
