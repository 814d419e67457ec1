"""Spines from CSV and Parquet: what is carried through, how times are read, and which are refused."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.errors import InvalidRequest, MalformedBody, ModelmillError, TooLarge
from services.feature.frames import spines
from services.feature.frames.spines import Spine
from services.feature.http import frame_requests
from services.feature.http.frame_requests import uploaded
from services.feature.intake import csv_table

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
BERLIN = ZoneInfo("Europe/Berlin")
CHANGE = datetime(2026, 10, 25, 1, tzinfo=UTC)
"""Summer time ends in Berlin: what its clocks show in the hour before, they show again in the hour after."""


def read(body: str | bytes, kind: str = CSV, keys: Sequence[str] = ("user_id",), time: str = "at") -> pa.Table:
    with spine_of(body, kind, keys=keys, time=time) as spine:
        return pa.Table.from_batches(spine.batches(), spine.schema)


def spine_of(body: str | bytes, kind: str, keys: Sequence[str], time: str) -> Spine:
    with tempfile.TemporaryFile() as file:
        file.write(body.encode() if isinstance(body, str) else body)
        file.seek(0)
        return uploaded(file, kind, keys=keys, time=time)


def parquet(table: pa.Table | pd.DataFrame, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), sink, **options)
    return sink.getvalue()


def test_csv_is_text_but_for_its_times() -> None:
    found = read('user_id,at,code,"a note"\n007,2026-01-01,01,"x, y"\n,2026-01-01,,\n')
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    assert found.to_pylist() == [
        {"user_id": "007", "at": midnight, "code": "01", "a note": "x, y"},
        {"user_id": None, "at": midnight, "code": None, "a note": None},
    ]
    assert found.schema.field("at").type == pa.timestamp("us", "UTC")


def test_parquet_keeps_its_types() -> None:
    table = pa.table({
        "user_id": pa.array([1, None], pa.int32()),
        "at": pa.array([0, 1], pa.timestamp("ns")),
        "share": pa.array([0.5, None], pa.float32()),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "many": [[1], []],
    })  # fmt: skip
    found = read(parquet(table), PARQUET)
    types = [pa.int32(), pa.timestamp("us", "UTC"), pa.float32(), pa.string(), pa.list_(pa.int64())]
    assert found.schema.types == types
    assert found.drop(["at"]).to_pylist() == table.drop(["at"]).to_pylist()


def test_the_index_that_pandas_writes_is_left_out() -> None:
    frame = pd.DataFrame({"user_id": ["u", "v"], "at": ["2026-01-01", "2026-01-02"]}, index=[3, 1])
    assert read(parquet(frame), PARQUET).column_names == ["user_id", "at"]
    assert read(frame.to_csv()).column_names == ["user_id", "at"]


@pytest.mark.parametrize("kind", [CSV, PARQUET])
def test_a_spine_of_no_rows_has_its_columns(kind: str) -> None:
    table = pa.table({"user_id": pa.array([], pa.string()), "at": pa.array([], pa.string())})
    found = read("user_id,at\n" if kind == CSV else parquet(table), kind)
    assert (found.column_names, found.num_rows) == (["user_id", "at"], 0)


def test_rows_stay_in_order_over_many_blocks_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "BLOCK", 1000)
    monkeypatch.setattr(spines, "ROWS_PER_CHUNK", 70)
    body = "n,user_id,at\n" + "".join(f'{n},"u\n{n}",{10**9 + n}\n' for n in range(1000))
    with spine_of(body, CSV, keys=["user_id"], time="at") as spine:
        sizes = [batch.num_rows for batch in spine.batches()]
        found = pa.Table.from_batches(spine.batches(["n", "user_id"]))
        assert spine.last == (10**9 + 999) * 10**6
    assert sizes == [70] * 14 + [20]
    assert found["n"].to_pylist() == [str(n) for n in range(1000)]
    assert found["user_id"].to_pylist() == [f"u\n{n}" for n in range(1000)]


# --- times


@given(st.lists(st.integers(-7200, 7200), min_size=1))
def test_times_around_the_end_of_summer_time_are_the_moments_that_they_name(seconds: list[int]) -> None:
    moments = [CHANGE + timedelta(seconds=s) for s in seconds]
    local = [moment.astimezone(BERLIN) for moment in moments]
    body = "user_id,at\n" + "".join(f"u,{time.isoformat()}\n" for time in local)
    assert read(body)["at"].to_pylist() == moments
    table = pa.table({"user_id": ["u"] * len(local), "at": pa.array(moments, pa.timestamp("ms", "Europe/Berlin"))})
    assert read(parquet(table), PARQUET)["at"].to_pylist() == moments


@pytest.mark.parametrize("text", ["2026-01-31T05:00:00", "2026-01-31 05:00", "1769835600", "2026-01-31T05:00:00.000Z"])
def test_a_time_without_offset_is_utc(text: str) -> None:
    assert read(f"user_id,at\nu,{text}\n")["at"].to_pylist() == [datetime(2026, 1, 31, 5, tzinfo=UTC)]


EXPECTED = "expected a time such as 2013-01-31T05:00:00Z, or seconds since 1970 in 9 or 10 digits"
REFUSED_TIMES = {
    "no time": (["2026-01-01", "soon"], 2, "soon", EXPECTED),
    "another country's order": (["2026-01-01", "31/01/2026"], 2, "31/01/2026", EXPECTED),
    "nothing": (["2026-01-01", None], 2, "", f"is missing; {EXPECTED}"),
    "a year of five digits": (["12026-01-01T00:00:00Z"], 1, "12026-01-01T00:00:00Z", EXPECTED),
    "an offset after none": (
        ["2026-01-01", "2026-01-01T00:00:00+01:00"], 2, "2026-01-01T00:00:00+01:00",
        "expected a time without an offset, as in the rows before",
    ),
    "no offset after one": (
        ["2026-01-01T00:00:00Z", "2026-01-01T00:00+01", "2026-01-01"], 3, "2026-01-01",
        "expected a time with an offset, as in the rows before",
    ),
    "seconds after a date": (
        ["2026-01-01", "1769835600"], 2, "1769835600", "expected a time without an offset, as in the rows before"
    ),
    "a date after seconds": (
        ["1769835600.5", "2026-01-01"], 2, "2026-01-01", "expected seconds since 1970, as in the rows before"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [CSV, PARQUET])
@pytest.mark.parametrize(("times", "row", "value", "reason"), REFUSED_TIMES.values(), ids=REFUSED_TIMES)
def test_a_time_is_refused_with_its_row_and_what_was_expected(
    times: list[str | None], row: int, value: str, reason: str, kind: str
) -> None:
    table = pa.table({"user_id": ["u"] * len(times), "at": pa.array(times, pa.string())})
    body = "user_id,at\n" + "".join(f"u,{time or ''}\n" for time in times)
    with pytest.raises(InvalidRequest) as caught:
        read(body if kind == CSV else parquet(table), kind)
    assert caught.value.fields == {"row": row, "column": "at", "value": value, "reason": reason}
    assert f"row {row}, column 'at', value {value!r}: {reason}" in caught.value.detail


def test_a_time_is_refused_by_the_number_of_its_row_in_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_requests, "ROWS_PER_CHUNK", 7)
    table = pa.table({"user_id": ["u"] * 100, "at": ["2026-01-01"] * 98 + ["2026-01-01T00:00Z", "soon"]})
    with pytest.raises(InvalidRequest, match="row 99, column 'at', value '2026-01-01T00:00Z'"):
        read(parquet(table), PARQUET)


def test_a_broken_line_is_refused_by_the_number_of_its_row_in_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "BLOCK", 1000)
    lines = ["u,2026-01-01"] * 1000
    lines[499] = "v"
    with pytest.raises(InvalidRequest, match="row 500, value 'v': has 1 columns; expected 2"):
        read("\n".join(["user_id,at", *lines]))


# --- other refusals

REFUSED: dict[str, tuple[str | bytes, str, type[ModelmillError], str]] = {
    "empty CSV": ("", CSV, MalformedBody, "the body is empty; expected rows"),
    "empty Parquet": ("", PARQUET, MalformedBody, "not a complete Parquet file"),
    "no time": ("user_id,when\nu,2026-01-01\n", CSV, InvalidRequest, "the spine has no column 'at'"),
    "no key": ("user,at\nu,2026-01-01\n", CSV, InvalidRequest, "no column 'user_id'; did you mean 'user'?; expected 'at', 'user_id'"),
    "a column twice": ("user_id,at,at\nu,2026-01-01,x\n", CSV, InvalidRequest, "column 'at' is there 2 times"),
    "a short row": ("user_id,at\nu,2026-01-01\nv\n", CSV, InvalidRequest, "row 2, value 'v': has 1 columns; expected 2"),
    "an open quote": ('user_id,at\n"u,2026-01-01\n', CSV, InvalidRequest, "row 1, value '\"u,2026-01-01': has a quoted value that does not end"),
    "not UTF-8": (b"user_id,at\n\xff,2026-01-01\n", CSV, InvalidRequest, "row 1, value '\ufffd,2026-01-01': is not UTF-8"),
    "a header that is not UTF-8": (b"user_id,\xff\n", CSV, MalformedBody, "not CSV in UTF-8"),
    "CSV as Parquet": ("user_id,at\nu,2026-01-01\n", PARQUET, MalformedBody, "not a complete Parquet file"),
    "keys that are fractions": (
        parquet(pa.table({"user_id": [0.5], "at": ["2026-01-01"]})), PARQUET, InvalidRequest,
        "column 'user_id' has type double; expected join keys that are text or whole numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "error", "detail"), REFUSED.values(), ids=REFUSED)
def test_a_spine_is_refused_with_the_reason(
    body: str | bytes, kind: str, error: type[ModelmillError], detail: str
) -> None:
    with pytest.raises(error) as caught:
        read(body, kind)
    assert detail in caught.value.detail


@pytest.mark.parametrize("kind", [CSV, PARQUET])
def test_more_rows_than_are_taken_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_requests, "MAX_SPINE_ROWS", 1)
    table = pa.table({"user_id": ["u"] * 2, "at": ["2026-01-01"] * 2})
    with pytest.raises(TooLarge, match="rows"):
        read("user_id,at\nu,2026-01-01\nu,2026-01-01\n" if kind == CSV else parquet(table), kind)
