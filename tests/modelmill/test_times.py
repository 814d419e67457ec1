from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelmill import times

FIVE = datetime(2013, 1, 31, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    ["2013-01-31T05:00:00Z", "2013-01-31 05:00", "2013-01-31T07:00+02:00", "20130131T050000Z", "2013-W05-4T05:00",
     1359608400, 1359608400.0, "1359608400", "1359608400.000"],
)  # fmt: skip
def test_a_time_is_iso_or_seconds(written: Any) -> None:
    assert times.read(written) == FIVE


@pytest.mark.parametrize("written", ["2013-01-31T05:00:00.1234567Z", "1359608400.1234567", 1359608400.1234567])
def test_what_is_finer_than_microseconds_is_cut_off(written: Any) -> None:
    assert times.read(written) == FIVE + timedelta(microseconds=123456)


@pytest.mark.parametrize(
    "written",
    [20130131, "20130131", 201301310500, "201301310500", 1359608400000, "1359608400000", 2013, -1359608400, 99999999,
     10**10, 1e300, float("nan"), True, None, b"2013-01-31", "2013-01-3105:00", "20130131505:00", "soon", "01/02/2013",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00", "\u0662\u0660\u0661\u0663-\u0660\u0661-\u0663\u0661", "\uff12\uff10\uff11\uff13-01-31 05:00"],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_or_in_none_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        times.read(written)


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS), st.sampled_from("T "))
def test_any_iso_time_is_read_as_it_was_written(moment: datetime, between: str) -> None:
    assert times.read(moment.isoformat(between)) == moment


@given(st.text(string.digits + "-:. TWZ+", max_size=24))
@example("2013-01-31 5")
def test_nothing_but_a_time_is_read_and_nothing_else_is_raised(text: str) -> None:
    try:
        found = times.read(text)
    except ValueError:
        return
    if text.replace(".", "", 1).isdigit():
        assert found.timestamp() == pytest.approx(float(text), abs=1e-5)
        assert 9 <= len(text.partition(".")[0]) <= 10
    else:
        assert found.isoformat()[:4] == text[:4] or text[4:6] == "-W" or text[4] == "W"


@pytest.mark.parametrize(
    "moment, text",
    [
        (datetime(2026, 11, 23, 23, 47, 8, 123456, UTC), "2026-11-23T23:47:08.123456Z"),
        (datetime(2026, 11, 24, tzinfo=timezone(timedelta(hours=2))), "2026-11-23T22:00:00.000000Z"),
        (datetime(7, 1, 2, tzinfo=UTC), "0007-01-02T00:00:00.000000Z"),
    ],
)
def test_stored_times_are_utc_of_fixed_width(moment: datetime, text: str) -> None:
    assert times.iso(moment) == text


def test_now_reads_back_as_now() -> None:
    assert abs(datetime.fromisoformat(times.utc_now()) - datetime.now(UTC)) < timedelta(seconds=5)


# --- lengths of time


@pytest.mark.parametrize("text, seconds", [("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7200), ("30d", 2_592_000)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert times.seconds(text) == seconds
    assert times.duration_text(seconds) == text


def test_a_duration_is_shown_in_the_longest_unit_that_fits() -> None:
    assert [times.duration_text(times.seconds(text)) for text in ("60s", "120m", "36h", "48h")] == [
        "1m",
        "2h",
        "36h",
        "2d",
    ]


@pytest.mark.parametrize(
    "text", ["", "15", "m", "0m", "-1m", "1.5h", "15 m", "15M", "1w", "1m1h", "٣m", "9999999d", 15]
)
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="is no length of time; expected a whole number of s, m, h or d") as refusal:
        times.seconds(text)
    assert repr(text) in str(refusal.value)


# --- when a stored row is too old to be used

NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("microseconds, expired", [(0, False), (1, True), (-1, False)])
def test_a_row_is_expired_once_its_age_is_over_the_limit(microseconds: int, expired: bool) -> None:
    time = times.iso(NOON - timedelta(days=30, microseconds=microseconds))
    assert (time < times.cutoff(NOON, 30 * 86_400)) is expired


@pytest.mark.parametrize("max_age", [None, 999_999 * 86_400])
def test_without_a_limit_or_with_one_beyond_the_calendar_nothing_expires(max_age: int | None) -> None:
    assert not times.iso(datetime.min.replace(tzinfo=UTC)) < times.cutoff(NOON, max_age)
