"""Check raw rows against what a source declares; whole columns at a time, rows named where they fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.columns.types import INT_LIMIT, TYPES, Column
from modelmill.declare.declarations import Source
from modelmill.errors import InvalidRequest, Rejection, did_you_mean
from services.feature.intake.decode import RawRows
from services.feature.rows.schema import (
    ARROW,
    EVENT_TIME,
    EXPECTED,
    FIRST_TIME,
    LAST_TIME,
    TIME,
    YEARS,
    constraint_breaches,
    future_breaches,
    key_breaches,
    last_time,
    positions,
    text_breaches,
)

FURTHEST_MICROSECONDS = 2**62
"""Microseconds since 1970 that no event time reaches; twice as many still fit 64 bits."""
UNITS = {pa.date32(): "D", pa.date64(): "ms"}
"""What Arrow counts dates in."""
MICROSECONDS = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1000, "us": 1}
MAX_LISTED_ROWS = 20
"""Rejected rows that an answer lists; the others are counted."""
MAX_KEPT_REASONS = 10_000
"""Rejected rows of one request whose reasons are kept."""

NULLS = pa.array(["", "nan", "na", "null", "none"])
PATTERNS = {
    "float": r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$",
    "int": r"^[+-]?\d{1,18}$",
    "bool": r"^(?i:true|false|1|0)$",
}
PARQUET_TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "float": lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
    "int": pa.types.is_integer,
    "bool": pa.types.is_boolean,
    "str": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
}


@dataclass(frozen=True)
class ValidRows:
    """The rows that a source allows: its keys as text, its columns and, where it declares one, its event time."""

    table: pa.Table
    total: int
    rejected: int
    rejections: list[Rejection]
    """The first `MAX_KEPT_REASONS` rejected rows, in the order of the rows."""

    @property
    def reasons(self) -> list[Rejection]:
        """Of the first `MAX_LISTED_ROWS` rejected rows."""
        return self.rejections[:MAX_LISTED_ROWS]


@dataclass(frozen=True)
class _Checked:
    """One column: its values, null where bad; and the positions of the bad ones, each with its reason."""

    values: pa.Array
    bad: dict[int, str]


def validate(source: Source, raw: RawRows, now: datetime | None = None) -> ValidRows:
    """The rows of `raw` that `source` allows at `now`, and why it does not allow the others.

    NaN counts as a missing value. Columns of text (CSV) are parsed; numbers in JSON and Parquet are taken as they are.

    Raises:
        InvalidRequest: for a column that is missing as a whole or that the source does not declare.
    """
    if not (raw.total or raw.columns):  # JSON without rows names no columns
        raw = RawRows({name: [] for name in (*_names(source), *source.columns)}, raw.numbers)
    _check_names(source, raw)
    bad: dict[int, tuple[str, str]] = {}
    checked: dict[str, pa.Array] = {}

    def take(name: str, column: _Checked) -> None:
        checked[name] = column.values
        for position, reason in column.bad.items():
            bad.setdefault(position, (name, reason))

    for entity in source.entities:
        take(entity.key, _keys(raw, entity.key))
    if source.event_time:
        found = event_times(raw.columns[source.event_time])
        ahead = future_breaches(found.values, last_time(now or datetime.now(UTC), source.max_future))
        take(source.event_time, _Checked(found.values, ahead | found.bad))
    for column in source.columns.values():
        take(column.name, _column(raw, column))
    if source.event_time:
        checked[EVENT_TIME] = checked.pop(source.event_time)
    table = pa.table(checked)
    if bad:
        table = table.filter(pa.array([i not in bad for i in range(table.num_rows)], pa.bool_()))
    first = [
        Rejection(raw.numbers[position], name, shown(raw.columns.get(name), position), reason)
        for position, (name, reason) in sorted(bad.items())[:MAX_KEPT_REASONS]
    ]
    rejections = sorted([*first, *raw.broken], key=lambda rejection: rejection.row)[:MAX_KEPT_REASONS]
    return ValidRows(table, raw.total, len(bad) + len(raw.broken), rejections)


def _names(source: Source) -> list[str]:
    """The columns that rows must have whatever they hold: join keys and event time."""
    return [entity.key for entity in source.entities] + ([source.event_time] if source.event_time else [])


def _check_names(source: Source, raw: RawRows) -> None:
    needed = _names(source)
    allowed = [*needed, *source.columns]
    for name in raw.columns:
        if name not in allowed:
            raise InvalidRequest(
                f"column {name!r} is not declared in source {source.name!r}{did_you_mean(name, allowed)}", column=name
            )
    needed += [column.name for column in source.columns.values() if not column.nullable]
    for name in needed:
        if name not in raw.columns:
            raise InvalidRequest(
                f"column {name!r} of source {source.name!r} is missing; got {', '.join(raw.columns) or 'no columns'}",
                column=name,
            )


def _column(raw: RawRows, column: Column) -> _Checked:
    values = raw.columns.get(column.name)
    if values is None:
        return _Checked(pa.nulls(len(raw.numbers), ARROW[column.dtype]), {})
    checked = _parsed(values, column.dtype) if raw.is_text else _typed(values, column.dtype)
    if column.dtype == "float":
        checked = _finite(checked)
    elif column.dtype == "str":
        checked = _Checked(checked.values, text_breaches(checked.values) | checked.bad)
    if column.constraints:
        checked = _Checked(checked.values, constraint_breaches(checked.values, column.constraints) | checked.bad)
    if not column.nullable:
        for position in positions(pc.is_null(checked.values)):
            checked.bad.setdefault(position, f"is missing; expected {EXPECTED[column.dtype]}")
    return checked


def _parsed(texts: pa.ChunkedArray, dtype: str) -> _Checked:
    """Text as `dtype`."""
    texts = texts.combine_chunks()
    if dtype == "str":
        return _Checked(pc.if_else(pc.equal(texts, ""), None, texts), {})
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.is_in(pc.utf8_lower(texts), NULLS), None, texts)
    fits = pc.match_substring_regex(texts, PATTERNS[dtype])
    bad = dict.fromkeys(positions(pc.invert(fits)), f"expected {EXPECTED[dtype]}")
    values = pc.if_else(fits, pc.replace_substring_regex(texts, r"^\+", ""), None)
    return _Checked(pc.cast(values, ARROW[dtype]), bad)


def _typed(values: pa.ChunkedArray | list[Any], dtype: str) -> _Checked:
    """Typed values as `dtype`, refusing any other type instead of converting it."""
    if isinstance(values, pa.ChunkedArray):
        if pa.types.is_decimal(values.type) and dtype in ("float", "int"):
            return _parsed(pc.cast(values, pa.string()), dtype)  # Arrow's cast to a float is not the nearest one
        if not PARQUET_TYPES[dtype](values.type) and not pa.types.is_null(values.type):
            return _all_bad(len(values), ARROW[dtype], f"has type {values.type}; expected {EXPECTED[dtype]}")
        whole = values.combine_chunks()
        return _bounded(whole) if dtype == "int" else _Checked(pc.cast(whole, ARROW[dtype], safe=False), {})
    allowed = (*TYPES[dtype].values, type(None))
    fits = [type(value) in allowed and (dtype != "int" or not value or abs(value) < INT_LIMIT) for value in values]
    bad = {position: f"expected {EXPECTED[dtype]}" for position, fit in enumerate(fits) if not fit}
    good = [value if fit else None for value, fit in zip(values, fits, strict=True)] if bad else values
    if dtype == "float":
        good = [None if value is None else float(value) for value in good]
    return _Checked(pa.array(good, ARROW[dtype]), bad)


def _bounded(values: pa.Array) -> _Checked:
    """Whole numbers of any width as `int`; those with more than 18 digits are bad."""
    if values.type == pa.uint64():  # half of which int64 cannot hold
        values = pc.min_element_wise(values, pa.scalar(INT_LIMIT, pa.uint64()), skip_nulls=False)
    values = pc.cast(values, pa.int64())
    fits = pc.and_(pc.greater(values, -INT_LIMIT), pc.less(values, INT_LIMIT))
    bad = dict.fromkeys(positions(pc.invert(fits)), f"expected {EXPECTED['int']}")
    return _Checked(pc.if_else(fits, values, None), bad)


def _finite(checked: _Checked) -> _Checked:
    """NaN becomes null, infinity is bad."""
    values = pc.if_else(pc.is_nan(checked.values), None, checked.values)
    infinite = positions(pc.is_inf(values))
    bad = checked.bad | dict.fromkeys(infinite, f"expected {EXPECTED['float']}")
    return _Checked(pc.if_else(pc.is_inf(values), None, values) if infinite else values, bad)


def _keys(raw: RawRows, name: str) -> _Checked:
    """A join key as text: text or a whole number."""
    values = raw.columns[name]
    if isinstance(values, list):
        allowed = (str, int, type(None))
        bad = {i: "expected text or a whole number" for i, v in enumerate(values) if type(v) not in allowed}
        texts = pa.array([None if i in bad or v is None else str(v) for i, v in enumerate(values)], pa.string())
    elif is_key(values.type):
        bad = {}
        texts = pc.cast(values, pa.string()).combine_chunks()
    else:
        return _all_bad(len(values), pa.string(), f"has type {values.type}; expected text or a whole number")
    return _Checked(texts, key_breaches(texts) | bad)


def is_key(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type can be join keys: text and whole numbers."""
    whole = pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
    return whole or PARQUET_TYPES["str"](kind)


def event_times(values: pa.ChunkedArray | list[Any]) -> _Checked:
    """Event times, cut to the microsecond: whatever `modelmill.times` reads, and Arrow's dates and timestamps."""
    if isinstance(values, list):
        checked = _times_one_by_one(values)
    elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        checked = _instants(values.combine_chunks())
    elif PARQUET_TYPES["str"](values.type):
        checked = _time_texts(values.combine_chunks())
    elif pa.types.is_integer(values.type) or pa.types.is_float64(values.type) or pa.types.is_null(values.type):
        checked = _times_one_by_one(values.to_pylist())
    else:
        return _all_bad(len(values), TIME, f"has type {values.type}; expected {EXPECTED['time']}")
    outside = pc.or_(pc.less_equal(checked.values, FIRST_TIME), pc.greater_equal(checked.values, LAST_TIME))
    bad = dict.fromkeys(positions(outside), f"expected {YEARS}")
    bad |= dict.fromkeys(positions(checked.values.is_null()), f"expected {EXPECTED['time']}")
    return _Checked(checked.values, bad | checked.bad)


def _instants(values: pa.Array) -> _Checked:
    """Dates, from midnight UTC, and timestamps, whatever their zone; those too far away for `TIME` stay far away.

    They are counted as whole numbers: Arrow's casts fail for all because of one, and ask for the zone by name.
    """
    unit = UNITS.get(values.type) or values.type.unit
    counts = pc.fill_null(values.view(pa.int32() if unit == "D" else pa.int64()), 0).to_numpy().astype(np.int64)
    if unit == "ns":
        counts //= 1000
    else:
        furthest = FURTHEST_MICROSECONDS // MICROSECONDS[unit]
        counts = np.clip(counts, -furthest, furthest) * MICROSECONDS[unit]
    return _Checked(pa.array(counts, mask=values.is_null().to_numpy(zero_copy_only=False)).view(TIME), {})


def _time_texts(texts: pa.StringArray) -> _Checked:
    for kind in (TIME, pa.timestamp("us")):  # the usual cases: all with an offset, or all without
        try:
            return _instants(pc.cast(texts, kind))
        except pa.ArrowInvalid:
            continue
    return _times_one_by_one(texts.to_pylist())


def _times_one_by_one(values: Sequence[Any]) -> _Checked:
    found: list[datetime | None] = []
    for value in values:
        try:
            found.append(times.read(value))
        except ValueError:
            found.append(None)
    return _Checked(pa.array(found, TIME), {})


def _all_bad(count: int, kind: pa.DataType, reason: str) -> _Checked:
    return _Checked(pa.nulls(count, kind), dict.fromkeys(range(count), reason))


def shown(values: pa.ChunkedArray | list[Any] | None, position: int) -> str:
    """The value as it came, cut to what fits an error message."""
    if values is None:
        return ""
    value = values[position]
    return str(readable(value) if isinstance(value, pa.Scalar) else value)[:80]


def readable(value: pa.Scalar) -> Any:
    """The value for Python; as Arrow shows it where Python has no such value or zone."""
    if not value.is_valid:
        return None
    with suppress(ValueError, OverflowError, KeyError):  # the last for a zone
        if not pa.types.is_timestamp(value.type):
            return value.as_py()
    return " ".join(pa.array([value], value.type).to_string().split())[2:-2]
