"""Event times through every door, against Python's whole numbers: what is stored is what was written, or is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from modelmill import Entity, Source
from modelmill.errors import InvalidRequest
from services.feature.http.frame_requests import READERS
from services.feature.intake.decode import decode
from services.feature.intake.validate import validate
from services.feature.rows.schema import EVENT_TIME
from tests.feature.http.test_uploads import spine_of

CLICKS = Source("clicks", entity=Entity("user", key="user_id"), event_time="at", columns={}, max_future="999999d")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = (
    (datetime(*day, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) for day in ((1000, 1, 1), (9999, 12, 31))
)
CSV, JSON, NDJSON, PARQUET = "text/csv", "application/json", "application/x-ndjson", "application/vnd.apache.parquet"

Micros = int | None
"""Microseconds since 1970; None of a row that is refused."""
few = settings(max_examples=25)
"""For each of several doors."""


def parquet(values: pa.Array, **options: Any) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"user_id": ["u"] * len(values), "at": values})
    try:
        pq.write_table(table, sink, **options)
    except pa.ArrowInvalid:
        assume(False)  # it cannot be written so
    return sink.getvalue()


def lines(values: Sequence[Any], between: str, write: Callable[[Any], str]) -> bytes:
    return between.join(write(value) for value in values).encode()


def as_csv(values: Sequence[Any]) -> bytes:
    return b"user_id,at\n" + lines(values, "\n", lambda value: f"u,{value}") + b"\n"


def as_ndjson(values: Sequence[Any]) -> bytes:
    return lines(values, "\n", lambda value: json.dumps({"user_id": "u", "at": value}))


def as_json(values: Sequence[Any]) -> bytes:
    return b"[" + as_ndjson(values).replace(b"\n", b",") + b"]"


TEXT_DOORS: dict[str, tuple[str, Callable[[Sequence[Any]], bytes]]] = {
    "CSV": (CSV, as_csv),
    "JSON": (JSON, as_json),
    "NDJSON": (NDJSON, as_ndjson),
    "Parquet": (PARQUET, lambda values: parquet(pa.array(values))),
}
"""How numbers and texts come in."""


def stored(body: bytes, kind: str) -> list[Micros]:
    """What becomes of each row; those that are refused name themselves, their column and value."""
    valid = validate(CLICKS, decode(body, kind), now=datetime(9998, 1, 1, tzinfo=UTC))
    refused = {rejection.row for rejection in valid.rejections}
    assert {(r.column, bool(r.value), "expected a time" in r.reason) for r in valid.rejections} <= {("at", True, True)}
    taken = iter(valid.table[EVENT_TIME].cast(pa.int64()).to_pylist())
    return [None if number in refused else next(taken) for number in range(1, valid.total + 1)]


def asked(body: bytes, kind: str) -> list[Micros]:
    """The times of a spine until the first that is refused, by its number, column and value."""
    try:
        with spine_of(body, kind, keys=["user_id"], time="at") as spine:
            return [one for batch in spine.batches(["at"]) for one in batch["at"].cast(pa.int64()).to_pylist()]
    except InvalidRequest as error:
        refused = error
    assert (refused.fields["column"], "expected" in refused.detail) == ("at", True)
    return [None] * int(refused.fields.get("row", 1))


def check(expected: list[Micros], body: bytes, kind: str) -> None:
    """That each row is taken as expected at both doors. A spine is taken as a whole or refused by its first bad row."""
    assert stored(body, kind) == expected
    if kind in READERS:
        first_bad = expected.index(None) + 1 if None in expected else 0
        assert asked(body, kind) == ([None] * first_bad or expected)


def within(micros: int) -> Micros:
    return micros if FIRST < micros < LAST else None


# --- instants in Parquet

MICROS = {"s": 10**6, "ms": 10**3, "us": 1, "D": 86_400 * 10**6}
INSTANTS = st.integers(FIRST - 10**15, LAST + 10**15) | st.sampled_from([FIRST, FIRST + 1, LAST - 1, LAST, 0, -1])
"""Microseconds; around what is allowed."""
ZONES = st.sampled_from([None, "UTC", "Europe/Berlin", "-03:30", "Mars/Phobos"])


def ticks(unit: str, bits: int = 64) -> st.SearchStrategy[list[int]]:
    limit = 2 ** (bits - 1)
    scaled = INSTANTS.map(lambda micros: micros * 1000 if unit == "ns" else micros // MICROS[unit])
    inside = scaled.filter(lambda tick: -limit <= tick < limit)
    return st.lists(inside | st.integers(-limit, limit - 1), min_size=1, max_size=5)


@given(st.sampled_from(["s", "ms", "us", "ns"]), ZONES, st.data())
def test_a_timestamp_is_the_instant_that_was_written(unit: str, zone: str | None, data: st.DataObject) -> None:
    counts = data.draw(ticks(unit))
    micros = [count // 1000 if unit == "ns" else count * MICROS[unit] for count in counts]
    body = parquet(pa.array(counts, pa.int64()).view(pa.timestamp(unit, zone)))
    check([within(one) for one in micros], body, PARQUET)


@given(st.sampled_from([("D", pa.int32(), pa.date32()), ("ms", pa.int64(), pa.date64())]), st.data())
def test_a_date_is_its_midnight_in_utc(kind: tuple[str, pa.DataType, pa.DataType], data: st.DataObject) -> None:
    unit, number, date = kind
    counts = data.draw(ticks(unit, number.bit_width))
    if unit == "ms":  # of whole days
        counts = [count // 86_400_000 * 86_400_000 for count in counts]
        assume(all(abs(count // 86_400_000) < 2**31 and abs(count) < 2**63 for count in counts))
    body = parquet(pa.array(counts, number).view(date))
    check([within(count * MICROS[unit]) for count in counts], body, PARQUET)


@given(st.sampled_from(["s", "ms", "us"]), st.data())
def test_a_time_of_96_bits_is_the_instant_that_was_written(unit: str, data: st.DataObject) -> None:
    micros = [one // MICROS[unit] * MICROS[unit] for one in data.draw(st.lists(INSTANTS, min_size=1, max_size=5))]
    array = pa.array([one // MICROS[unit] for one in micros], pa.timestamp(unit))
    check([within(one) for one in micros], parquet(array, use_deprecated_int96_timestamps=True), PARQUET)


@pytest.mark.parametrize("year", [300_000, 1_000_000, 5_000_000])
def test_a_time_of_96_bits_that_would_wrap_around_is_refused_by_its_row(year: int) -> None:
    seconds = pa.array([0, (year - 1970) * 31_556_952], pa.timestamp("s"))
    body = parquet(seconds, use_deprecated_int96_timestamps=True)
    with pytest.raises(InvalidRequest, match="row 2, column 'at': expected a time of the years 1000 to 9999"):
        decode(body, PARQUET)
    assert asked(body, PARQUET) == [None, None]


# --- numbers and texts


@pytest.mark.parametrize("door", TEXT_DOORS)
@few
@given(numbers=st.lists(st.integers(0, 10**15) | st.integers(10**8, 10**10) | st.integers(-(10**10), 0), min_size=1))
@example(numbers=[20200102, 202001010500, 63072000000, 1359633600, 1359633600000, 2013, 99_999_999, 10**8, 10**10])
def test_a_whole_number_is_seconds_of_nine_or_ten_digits_at_every_door(door: str, numbers: list[int]) -> None:
    kind, write = TEXT_DOORS[door]
    expected = [one * 10**6 if 10**8 <= one < 10**10 else None for one in numbers]
    check(expected, write(numbers), kind)
    check(expected, write([str(one) for one in numbers]), kind)


@pytest.mark.parametrize("door", TEXT_DOORS)
@few
@given(micros=st.lists(st.integers(10**14, 2**32 * 10**6), min_size=1))
def test_seconds_with_a_fraction_are_read_to_the_microsecond_at_every_door(door: str, micros: list[int]) -> None:
    kind, write = TEXT_DOORS[door]
    check(list(micros), write([one / 10**6 for one in micros]), kind)
    texts = [f"{one // 10**6}.{one % 10**6:06}789" for one in micros]
    check(list(micros), write(texts), kind)


OFFSETS = st.none() | st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda length: timezone(length - length % timedelta(minutes=1))
)


@pytest.mark.parametrize("door", TEXT_DOORS)
@few
@given(moment=st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 29), timezones=OFFSETS), zulu=st.booleans())
def test_an_iso_time_is_the_same_instant_at_every_door(door: str, moment: datetime, zulu: bool) -> None:
    kind, write = TEXT_DOORS[door]
    text = moment.isoformat(" " if moment.tzinfo else "T")
    text += "Z" if zulu and moment.tzinfo is None else ""
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    check([within((utc - EPOCH) // timedelta(microseconds=1))] * 2, write([text, text]), kind)


TEXTS = st.text("0123456789-+:.TZW ", max_size=20) | st.from_regex(
    r"(20\d\d-?[01]\d-?[0-3]\d)?[T 05/]?[012]\d:?\d\d(:?\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?| Mars)?", fullmatch=True
)


@settings(max_examples=60)
@given(st.lists(TEXTS.filter(lambda text: text.isascii() and text.strip()), min_size=1, max_size=4))
@example(["2020010112:00", "20200101512:00", "2020-01-0112:00", "2020-01-01T1200", "20200101T12"])
def test_whatever_is_written_is_read_alike_at_every_door_whatever_stands_beside_it(texts: list[str]) -> None:
    together = [stored(write(texts), kind) for kind, write in TEXT_DOORS.values()]
    alone = [stored(write([text]), kind)[0] for text in texts for kind, write in [TEXT_DOORS["JSON"]]]
    assert together == [alone] * len(TEXT_DOORS)
