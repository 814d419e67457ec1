from __future__ import annotations

import io
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill import Entity, Source, column
from modelmill.errors import InvalidRequest, Rejection
from services.feature.intake.decode import RawRows, decode
from services.feature.intake.validate import MAX_LISTED_ROWS, validate
from services.feature.rows.schema import MAX_KEY_BYTES, MAX_TEXT_BYTES
from tests.feature.conftest import FORMATS

USER, ITEM = Entity("user", key="user_id"), Entity("item", key="item_id")
USERS = Source("users", entity=USER, columns={"x": float, "n": int | None, "flag": bool | None, "name": str | None})
EVENTS = Source("events", entities=[USER, ITEM], event_time="at", columns={"x": float})
GOOD = {"user_id": "u", "x": 1.5, "n": 2, "flag": True, "name": "one"}
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


def lists(*rows: Mapping[str, Any]) -> RawRows:
    """Rows as they come from JSON."""
    return RawRows({name: [row[name] for row in rows] for name in rows[0]}, range(1, len(rows) + 1))


def arrow(**columns: Any) -> RawRows:
    """Columns as they come from Parquet."""
    table = pa.table(columns)
    return RawRows({name: table[name] for name in table.column_names}, range(1, table.num_rows + 1))


def text(**columns: list[str]) -> RawRows:
    """Columns as they come from CSV."""
    raw = arrow(**columns)
    return RawRows(raw.columns, raw.numbers, is_text=True)


def only(column: str, raw: RawRows, source: Source = USERS) -> list[Any]:
    """The values of one column, of which none was rejected."""
    valid = validate(source, raw)
    assert valid.reasons == []
    values: list[Any] = valid.table[column].to_pylist()
    return values


def reasons(raw: RawRows, source: Source = USERS) -> list[Rejection]:
    return validate(source, raw).reasons


@pytest.mark.parametrize("kind", FORMATS)
def test_good_rows_of_any_format_come_out_the_same(kind: str) -> None:
    content_type, write = FORMATS[kind]
    rows = [GOOD, GOOD | {"user_id": "v", "n": None, "flag": None, "name": None}]
    valid = validate(USERS, decode(write(*rows), content_type))
    assert valid.table.to_pylist() == rows
    assert (valid.total, valid.rejected, valid.reasons) == (2, 0, [])


def test_the_table_has_the_declared_types() -> None:
    schema = validate(USERS, lists(GOOD)).table.schema
    assert [str(field.type) for field in schema] == ["string", "double", "int64", "bool", "string"]


# --- columns


def test_an_undeclared_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="column 'nam' is not declared in source 'users'; did you mean 'name'"):
        validate(USERS, lists(GOOD | {"nam": 1}))


@pytest.mark.parametrize("column", ["user_id", "x"])
def test_a_missing_column_is_named_with_those_that_came(column: str) -> None:
    rows = {name: value for name, value in GOOD.items() if name != column}
    with pytest.raises(InvalidRequest, match=f"column '{column}' of source 'users' is missing; got {', '.join(rows)}"):
        validate(USERS, lists(rows))


def test_a_missing_time_is_named() -> None:
    with pytest.raises(InvalidRequest, match="column 'at' of source 'events' is missing"):
        validate(EVENTS, lists({"user_id": "u", "item_id": "i", "x": 1.0}))


def test_a_nullable_column_may_be_missing() -> None:
    assert only("n", lists({"user_id": "u", "x": 1.0})) == [None]


# --- values


@pytest.mark.parametrize(
    "column, value, expected",
    [
        ("x", "1.5", "a finite number"),
        ("x", True, "a finite number"),
        ("x", [1], "a finite number"),
        ("n", 1.0, "a whole number of at most 18 digits"),
        ("n", False, "a whole number of at most 18 digits"),
        ("n", 10**18, "a whole number of at most 18 digits"),
        ("n", 2**64 - 1, "a whole number of at most 18 digits"),
        ("flag", 1, "true or false"),
        ("flag", "true", "true or false"),
        ("name", 3, "text"),
        ("name", {"first": "a"}, "text"),
        ("user_id", 1.5, "text or a whole number"),
        ("user_id", True, "text or a whole number"),
    ],
)
def test_a_value_of_the_wrong_type_in_json_is_named(column: str, value: object, expected: str) -> None:
    assert reasons(lists(GOOD, GOOD | {column: value})) == [Rejection(2, column, str(value), f"expected {expected}")]


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_missing_value_where_none_may_be_is_named(value: float | None) -> None:
    assert reasons(lists(GOOD | {"x": value})) == [
        Rejection(1, "x", str(value), "is missing; expected a finite number")
    ]


def test_nan_is_a_missing_value() -> None:
    source = Source("s", entity=USER, columns={"x": float | None})
    assert only("x", lists({"user_id": "u", "x": math.nan}), source) == [None]


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_bad_also_where_a_value_may_be_missing(value: float) -> None:
    source = Source("s", entity=USER, columns={"x": float | None})
    [rejection] = reasons(arrow(user_id=["u", "v"], x=[1.0, value]), source)
    assert rejection == Rejection(2, "x", str(value), "expected a finite number")


@pytest.mark.parametrize(
    "column, value",
    [("x", "1,5"), ("x", "one"), ("x", "inf"), ("x", "-Infinity"), ("x", "1e999"), ("x", "0x10"), ("x", "1_000"),
     ("x", "٣"), ("x", "1 2"), ("n", "1.0"), ("n", "1e3"), ("n", "1" * 19), ("flag", "yes"), ("flag", "2")],
)  # fmt: skip
def test_a_bad_text_in_csv_is_named(column: str, value: str) -> None:
    columns = {"user_id": ["u", "v"], "x": ["1", "1"], column: ["1", value]}
    [rejection] = reasons(text(**columns))
    assert (rejection.row, rejection.column, rejection.value) == (2, column, value)
    assert rejection.reason.startswith("expected ")


@pytest.mark.parametrize(
    "written, value",
    [("1", 1.0), ("+1.5", 1.5), (" -.5 ", -0.5), ("5.", 5.0), ("1e-3", 1e-3), ("1E+3", 1e3), ("007", 7.0)],
)
def test_numbers_in_csv_may_be_written_in_any_common_way(written: str, value: float) -> None:
    assert only("x", text(user_id=["u"], x=[written])) == [value]


@pytest.mark.parametrize("written", ["", " ", "NaN", "nan", "NA", "null", "None"])
def test_a_missing_number_in_csv_may_be_written_in_any_common_way(written: str) -> None:
    assert only("n", text(user_id=["u"], x=["1"], n=[written])) == [None]


@pytest.mark.parametrize("written, value", [("true", True), ("FALSE", False), ("1", True), ("0", False)])
def test_truth_in_csv_may_be_written_in_any_common_way(written: str, value: bool) -> None:
    assert only("flag", text(user_id=["u"], x=["1"], flag=[written])) == [value]


def test_an_empty_text_in_csv_is_missing_and_other_texts_stay_as_they_are() -> None:
    names = ["", " ", "NaN", "null", " a ", "\0"]
    assert only("name", text(user_id=list("abcdef"), x=["1"] * 6, name=names)) == [None, *names[1:]]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_in_csv_is_read_bit_for_bit(value: float) -> None:
    [read] = only("x", text(user_id=["u"], x=[repr(value)]))
    assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))


@given(
    st.from_regex(
        r"[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})([eE][+-]?\d{1,4})?", fullmatch=True, alphabet="0123456789.eE+-"
    )
)
def test_whatever_looks_like_a_number_is_read_as_python_reads_it_or_refused(written: str) -> None:
    valid = validate(USERS, text(user_id=["u"], x=[written]))
    if math.isinf(float(written)):
        assert valid.rejected == 1
    else:
        assert valid.table["x"].to_pylist() == [float(written)]


@given(st.from_regex(r"[+-]?\d{1,18}", fullmatch=True, alphabet="0123456789+-"))
def test_whatever_looks_like_a_whole_number_is_read(written: str) -> None:
    assert only("n", text(user_id=["u"], x=["1"], n=[written])) == [int(written)]


@pytest.mark.parametrize(
    "column, values, expected",
    [
        ("x", pa.array([1, 2], pa.int8()), [1.0, 2.0]),
        ("x", pa.array([0.5, None], pa.float16()), None),
        ("n", pa.array([1, None], pa.uint64()), [1, None]),
        ("n", pa.array([None, None], pa.null()), [None, None]),
        ("name", pa.array(["a", None], pa.large_string()), ["a", None]),
    ],
)
def test_parquet_columns_of_related_types_are_taken(column: str, values: pa.Array, expected: list[Any] | None) -> None:
    valid = validate(USERS, arrow(**{"user_id": ["u", "v"], "x": [1.0, 1.0], column: values}))
    if expected is None:
        assert [(r.row, r.column) for r in valid.reasons] == [(2, column)]
    else:
        assert valid.table[column].to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.decimal128(38, 3), pa.decimal256(60, 3), pa.decimal64(18, 3)])
@given(st.data())
def test_a_decimal_in_parquet_is_the_nearest_float(kind: pa.DataType, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.decimals(-(10**14), 10**14, places=3), min_size=1))
    found = only("x", arrow(user_id=["u"] * len(numbers), x=pa.array(numbers, kind)))
    assert found == [float(number) for number in numbers]


def test_a_whole_decimal_in_parquet_is_an_int_or_a_key_and_any_other_is_named() -> None:
    whole = pa.array([Decimal(7), Decimal(-(10**17)), Decimal(10**18)], pa.decimal128(38, 0))
    valid = validate(USERS, arrow(user_id=whole, x=[1.0] * 3, n=whole))
    assert valid.table.select(["user_id", "n"]).to_pylist() == [
        {"user_id": "7", "n": 7}, {"user_id": str(-(10**17)), "n": -(10**17)}
    ]  # fmt: skip
    assert valid.reasons == [Rejection(3, "n", str(10**18), "expected a whole number of at most 18 digits")]
    [rejection] = reasons(arrow(user_id=["u"], x=[1.0], n=pa.array([Decimal("1.5")])))
    assert (rejection.column, rejection.value) == ("n", "1.5")


@pytest.mark.parametrize(
    "column, values",
    [
        ("x", ["1", "2"]),
        ("flag", [Decimal("1"), Decimal("0")]),
        ("n", [1.0, 2.0]),
        ("flag", [1, 0]),
        ("name", [1, 2]),
        ("user_id", [1.0, 2.0]),
        ("name", [["a"], ["b"]]),
    ],
)
def test_a_parquet_column_of_another_type_is_refused_with_the_type(column: str, values: list[Any]) -> None:
    found = reasons(arrow(**{"user_id": ["u", "v"], "x": [1.0, 1.0], column: values}))
    assert [(r.row, r.column) for r in found] == [(1, column), (2, column)]
    assert f"has type {pa.array(values).type}" in found[0].reason


@pytest.mark.parametrize(
    "values",
    [np.array([1, 2**64 - 1], np.uint64), np.array([1, -(2**63)]), np.array([1, 10**18]), np.array([1, -(10**18)])],
)
def test_of_whole_numbers_in_parquet_only_those_with_too_many_digits_are_bad(values: np.ndarray[Any, Any]) -> None:
    valid = validate(USERS, arrow(user_id=["u", "v"], x=[1.0, 1.0], n=values))
    assert [(r.row, r.value) for r in valid.reasons] == [(2, str(values[1]))]
    assert valid.table["n"].to_pylist() == [1]


# --- constraints


LIMITED = Source(
    "users",
    entity=USER,
    columns={
        "x": column(float | None, min=0, max=1.5),
        "n": column(int | None, min=-1),
        "size": column(int | None, choices=[1, 2]),
        "flag": column(bool | None, choices=[True]),
        "code": column(str | None, pattern="[A-Z]{3}|ü+"),
        "name": column(str | None, choices=["ann", "bo"]),
    },
)


@pytest.mark.parametrize(
    "name, good, bad, expected",
    [
        ("x", [0.0, 1.5, 1, None, math.nan], [-0.001, 1.6, 2], "from 0 to 1.5"),
        ("n", [-1, 10**17, None], [-2], "at least -1"),
        ("size", [1, 2, None], [0, 3], "one of 1, 2"),
        ("flag", [True, None], [False], "one of True"),
        ("code", ["ABC", "ü", "üü", None], ["abc", "ABCD", "xABC", "ABC\n", ""], "text matching '[A-Z]{3}|ü+'"),
        ("name", ["ann", None], ["Ann", ""], "one of 'ann', 'bo'"),
    ],
)
def test_values_that_a_constraint_does_not_allow_are_named(
    name: str, good: list[Any], bad: list[Any], expected: str
) -> None:
    values = [*good, *bad]
    found = reasons(RawRows({"user_id": ["u"] * len(values), name: values}, range(1, len(values) + 1)), LIMITED)
    numbers = range(len(good) + 1, len(values) + 1)
    assert found == [Rejection(n, name, str(v), f"expected {expected}") for n, v in zip(numbers, bad, strict=True)]


@pytest.mark.parametrize("kind", FORMATS)
def test_constraints_hold_in_any_format(kind: str) -> None:
    content_type, write = FORMATS[kind]
    rows = [{"user_id": "u", "x": x, "code": code} for x, code in ((1.0, "ABC"), (2.0, "ABC"), (1.0, "ab"))]
    valid = validate(LIMITED, decode(write(*rows), content_type))
    assert [(r.row, r.column) for r in valid.reasons] == [(2, "x"), (3, "code")]
    assert valid.table["x"].to_pylist() == [1.0]


def test_a_value_of_the_wrong_type_is_told_so_and_not_measured() -> None:
    assert [r.reason for r in reasons(lists({"user_id": "u", "x": "2"}), LIMITED)] == ["expected a finite number"]


@pytest.mark.parametrize("text_of", ["x", "ü"])
def test_a_text_of_more_than_64_kib_is_refused(text_of: str) -> None:
    longest = text_of * (MAX_TEXT_BYTES // len(text_of.encode()))
    assert only("name", lists(GOOD | {"name": longest})) == [longest]
    [rejection] = reasons(lists(GOOD | {"name": longest + "x"}))
    assert (rejection.column, rejection.value, rejection.reason) == (
        "name",
        longest[:80],
        "expected text of at most 65536 bytes",
    )


@given(st.lists(st.integers(-5, 5) | st.none(), max_size=20))
def test_whatever_the_values_those_that_are_allowed_come_through(values: list[int | None]) -> None:
    source = Source("s", entity=USER, columns={"n": column(int | None, min=-2, max=3, choices=[-2, 0, 1, 3])})
    valid = validate(source, RawRows({"user_id": ["u"] * len(values), "n": values}, range(1, len(values) + 1)))
    assert valid.table["n"].to_pylist() == [value for value in values if value in (None, -2, 0, 1, 3)]


# --- join keys


@pytest.mark.parametrize("key", ["a", "a:b", "with space", "ü/ñ", "7", "x" * MAX_KEY_BYTES])
def test_a_key_may_be_any_text(key: str) -> None:
    assert only("user_id", lists(GOOD | {"user_id": key})) == [key]


@pytest.mark.parametrize("raw", [lists(GOOD | {"user_id": 7}), arrow(user_id=np.array([7], np.int16), x=[1.0])])
def test_a_whole_number_as_key_is_its_text(raw: RawRows) -> None:
    assert only("user_id", raw) == ["7"]


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_is_named(key: str | None) -> None:
    [rejection] = reasons(lists(GOOD, GOOD | {"user_id": key}))
    assert (rejection.row, rejection.column, rejection.reason) == (2, "user_id", "is missing; expected a join key")


@pytest.mark.parametrize("key", ["x" * (MAX_KEY_BYTES + 1), "ü" * (MAX_KEY_BYTES // 2 + 1)])
def test_a_long_key_is_refused_and_shown_in_part(key: str) -> None:
    [rejection] = reasons(lists(GOOD | {"user_id": key}))
    assert (rejection.value, rejection.reason) == (key[:80], f"expected a join key of at most {MAX_KEY_BYTES} bytes")


@pytest.mark.parametrize("key", ["a\nb", "a\tb", "\0", "\x7f", "\x85", "\x1b[2J"])
def test_a_key_with_control_characters_is_refused(key: str) -> None:
    [rejection] = reasons(lists(GOOD | {"user_id": key}))
    assert (rejection.column, rejection.reason) == ("user_id", "expected a join key without control characters")


def test_every_key_of_an_event_is_needed() -> None:
    found = reasons(lists({"user_id": "u", "item_id": None, "at": "2013-01-31", "x": 1.0}), EVENTS)
    assert [(r.row, r.column) for r in found] == [(1, "item_id")]


# --- event times


def times(raw_times: Any, *, is_text: bool = False) -> RawRows:
    count = len(raw_times)
    columns = {"user_id": ["u"] * count, "item_id": ["i"] * count, "x": [1.0] * count, "at": raw_times}
    if is_text:
        return text(**columns | {"x": ["1.0"] * count})
    return arrow(**columns) if isinstance(raw_times, pa.Array) else RawRows(columns, range(1, count + 1))


@pytest.mark.parametrize(
    "written",
    [
        "2013-01-31T12:00:00Z",
        "2013-01-31T12:00:00",
        "2013-01-31 12:00:00",
        "2013-01-31T12:00",
        "2013-01-31T14:00:00+02:00",
        "2013-01-31T12:00:00.000000000Z",
        "20130131T120000Z",
        "1359633600",
        "1359633600.0",
    ],
)
@pytest.mark.parametrize("is_text", [True, False])
def test_a_time_may_be_written_in_any_common_way(written: str, is_text: bool) -> None:
    assert only("_event_time", times([written], is_text=is_text), EVENTS) == [NOON]


def test_times_of_one_column_may_be_written_in_different_ways() -> None:
    written = ["2013-01-31T12:00:00Z", "2013-01-31 12:00", "1359633600"]
    assert only("_event_time", times(written, is_text=True), EVENTS) == [NOON] * 3


@pytest.mark.parametrize("seconds", [1359633600, 1359633600.0])
def test_a_number_is_seconds_since_1970(seconds: float) -> None:
    assert only("_event_time", times([seconds]), EVENTS) == [NOON]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("ns")]
)
def test_a_parquet_timestamp_of_any_kind_is_taken(kind: pa.DataType) -> None:
    moment = NOON if kind.tz else NOON.replace(tzinfo=None)
    assert only("_event_time", times(pa.array([moment], kind)), EVENTS) == [NOON]


def test_microseconds_are_kept() -> None:
    written = ["2013-01-31T12:00:00.123456Z", "2013-01-31T12:00:00.1Z"]
    moments = [NOON + timedelta(microseconds=123456), NOON + timedelta(milliseconds=100)]
    assert only("_event_time", times(written, is_text=True), EVENTS) == moments


@given(
    st.datetimes(
        datetime(1001, 1, 1), datetime(9998, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))])
    )
)
def test_any_iso_time_is_read_to_the_microsecond(moment: datetime) -> None:
    valid = validate(EVENTS, times([moment.isoformat()], is_text=True), now=datetime(9998, 1, 2, tzinfo=UTC))
    assert valid.table["_event_time"].to_pylist() == [moment]


WRITTEN = ["2013-01-31T12:00:00Z", "2013-01-31 12:00", "2013-01-31", "20130131", "2013-01-31T14:00:00+02:00",
           "2013-01-31T12:00:00.5", "1359633600", "2013-W05-4", "01/02/2013", "02.01.2013", "2013-31-01", "noon", "",
           " 2013-01-31", "2013-01-31T12"]  # fmt: skip


@given(st.lists(st.sampled_from(WRITTEN), min_size=1, max_size=5))
def test_each_time_of_a_mixed_column_is_read_as_it_would_be_alone(written: list[str]) -> None:
    valid = validate(EVENTS, times(written, is_text=True))
    alone = [validate(EVENTS, times([one], is_text=True)) for one in written]
    assert valid.table["_event_time"].to_pylist() == [t for v in alone for t in v.table["_event_time"].to_pylist()]
    assert [r.row for r in valid.reasons] == [number for number, v in enumerate(alone, start=1) if v.rejected]


@pytest.mark.parametrize("written", ["01/02/2013", "02.01.2013", "2013-31-01", "1/2/13", "Jan 2 2013"])
def test_a_time_that_could_be_read_in_two_ways_is_refused_and_not_guessed(written: str) -> None:
    [rejection] = reasons(times(["2013-01-31", written, "2013-02-01"], is_text=True), EVENTS)
    assert (rejection.row, rejection.value) == (2, written)


@pytest.mark.parametrize("ahead, taken", [(timedelta(minutes=5), True), (timedelta(minutes=5, microseconds=1), False)])
def test_a_time_in_the_future_is_taken_within_five_minutes(ahead: timedelta, taken: bool) -> None:
    valid = validate(EVENTS, times([NOON.isoformat(), (NOON + ahead).isoformat()], is_text=True), now=NOON)
    assert valid.rejected == (not taken)
    if not taken:
        [rejection] = valid.reasons
        assert (rejection.row, rejection.column) == (2, "at")
        assert (
            rejection.reason == "is in the future; expected a time of at most 2013-01-31T12:05:00.000000Z (max_future)"
        )


def test_how_far_in_the_future_a_time_may_be_is_the_source_s_to_say() -> None:
    def rejected(max_future: str) -> int:
        source = Source("events", entities=[USER, ITEM], event_time="at", max_future=max_future, columns={"x": float})
        return validate(source, times([(NOON + timedelta(hours=2)).isoformat()]), now=NOON).rejected

    assert [rejected(limit) for limit in ("1h", "2h", "999999d")] == [1, 0, 0]


BAD_TIMES = ["", "yesterday", "2013-13-01", "31.01.2013", "20130131120000", "1359633600000", "99-01-01", "10000-01-01",
             "12345", "99999999999999999999"]  # fmt: skip


@pytest.mark.parametrize("written", BAD_TIMES)
@pytest.mark.parametrize("is_text", [True, False])
def test_a_bad_time_is_named(written: str, is_text: bool) -> None:
    [rejection] = reasons(times(["2013-01-31", written], is_text=is_text), EVENTS)
    assert (rejection.row, rejection.column, rejection.value) == (2, "at", written)
    assert rejection.reason == "expected a time such as 2013-01-31T05:00:00Z, or seconds since 1970 in 9 or 10 digits"


@pytest.mark.parametrize("value", [None, True, [], math.nan, math.inf, 1359633600000, -1e30])
def test_a_bad_time_in_json_is_named(value: object) -> None:
    [rejection] = reasons(times(["2013-01-31", value]), EVENTS)
    assert (rejection.row, rejection.column, rejection.value) == (2, "at", str(value))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0, 10**12], pa.timestamp("s")),
        pa.array([0, 10**17], pa.timestamp("s")),
        pa.array([0, 2**62], pa.timestamp("us", "UTC")),
        pa.array([0, None], pa.timestamp("us", "UTC")),
        pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32()),
        pa.array([1.4e9, 1.4e9], pa.float32()),
        pa.array([10**9, -1]),
        pa.array([10**9, 20130131]),
        pa.array([10**9, 1359633600000]),
    ],
    ids=[
        "in the year 33658",
        "not in microseconds",
        "in the year 148108",
        "missing",
        "an infinite date",
        "of few digits",
        "negative",
        "a date in digits",
        "in milliseconds",
    ],
)
def test_a_bad_time_in_parquet_is_named(values: pa.Array) -> None:
    assert (2, "at") in [(r.row, r.column) for r in reasons(times(values), EVENTS)]


def test_one_time_out_of_range_refuses_its_row_alone() -> None:
    valid = validate(EVENTS, times(pa.array([10**12, 2**62, 0], pa.timestamp("ms"))))
    assert valid.table["_event_time"].to_pylist() == [
        datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ]
    [rejection] = valid.reasons
    assert (rejection.row, rejection.column, rejection.reason) == (2, "at", "expected a time of the years 1000 to 9999")
    assert str(2**62) in rejection.value


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("us", "Mars/Phobos")])
def test_times_that_python_does_not_know_are_named_where_no_time_is_expected(kind: pa.DataType) -> None:
    far = pa.array([2**31 - 1] * 2, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)
    for values in (far, pa.ListArray.from_arrays([0, 1, 2], far)):
        found = reasons(arrow(user_id=["u", "v"], x=values))
        assert [(r.row, r.column, bool(r.value)) for r in found] == [(1, "x", True), (2, "x", True)]
        assert found[0].reason == f"has type {values.type}; expected a finite number"


def test_the_end_of_a_day_as_its_24th_hour_is_no_damage_to_the_file() -> None:
    hours = pa.array([24 * 3600 * 10**6], pa.int64()).view(pa.time64("us"))
    sink = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["u"], "x": hours}), sink)
    [rejection] = reasons(decode(sink.getvalue(), FORMATS["parquet"][0]))
    assert rejection.reason == "has type time64[us]; expected a finite number"


def test_a_column_of_times_of_another_type_is_refused_with_the_type() -> None:
    [rejection] = reasons(times(pa.array([3600], pa.time32("s"))), EVENTS)
    assert rejection.reason.startswith("has type time32[s]; expected a time such as")


# --- reasons


def test_good_rows_of_a_bad_file_stay_in_order() -> None:
    valid = validate(USERS, lists(*(GOOD | {"user_id": str(n), "x": n if n % 3 else None} for n in range(6))))
    assert valid.table["user_id"].to_pylist() == ["1", "2", "4", "5"]
    assert (valid.total, valid.rejected) == (6, 2)


def test_a_row_is_rejected_once_for_its_first_bad_column() -> None:
    valid = validate(USERS, lists(GOOD | {"user_id": None, "x": "a", "n": "b"}))
    assert (valid.rejected, [r.column for r in valid.reasons]) == (1, ["user_id"])


def test_bad_values_and_broken_lines_are_listed_in_the_order_of_the_rows() -> None:
    valid = validate(USERS, decode(b"user_id,x\na,1\nb\nc,bad\nd,1,2\n,1\n", "text/csv"))
    assert [(r.row, r.column) for r in valid.reasons] == [(2, ""), (3, "x"), (4, ""), (5, "user_id")]
    assert (valid.total, valid.rejected) == (5, 4)


def test_the_first_reasons_are_listed_and_the_others_counted() -> None:
    valid = validate(USERS, lists(*([GOOD] * 5 + [GOOD | {"x": None}] * 1000)))
    assert (valid.rejected, len(valid.reasons), valid.reasons[0].row) == (1000, MAX_LISTED_ROWS, 6)


@pytest.mark.parametrize(
    "body, kind",
    [(b"user_id,item_id,at,x\n", "text/csv"), (b"[]", "application/json"), (b"\n", "application/x-ndjson")],
)
def test_no_rows_are_fine(body: bytes, kind: str) -> None:
    valid = validate(EVENTS, decode(body, kind))
    assert (valid.table.num_rows, valid.total) == (0, 0)
    assert valid.table.schema == validate(EVENTS, times(["2013-01-31"])).table.schema


def test_what_pandas_writes_is_taken() -> None:
    frame = pd.DataFrame({"user_id": ["u", "v"], "x": [1, 2], "n": pd.array([1, None], "Int64"), "name": ["a", None]})
    content_type, _ = FORMATS["parquet"]
    valid = validate(USERS, decode(frame.to_parquet(), content_type))
    assert valid.table["n"].to_pylist() == [1, None]
