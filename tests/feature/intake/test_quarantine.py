from __future__ import annotations

import math
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pytest

from modelmill.declare.declarations import Entity, Source
from modelmill.state.connections import Redis
from services.feature.intake import quarantine
from services.feature.intake.decode import RawRows, decode
from services.feature.intake.quarantine import MAX_LENGTH, MAX_ROW_BYTES
from services.feature.intake.validate import validate
from services.feature.store import journal
from tests.feature.conftest import FORMATS, ROW, Room, csv_rows, metric

USERS = Source("users", entity=Entity("user", key="user_id"), columns={"x": float, "name": str | None})
NOW = datetime(2013, 1, 31, 12, tzinfo=UTC)
PARQUET = FORMATS["parquet"][0]
BAD = ROW | {"user_id": "v", "feature_1": "much"}


def kept(redis: Redis, raw: RawRows, request: str = "", now: datetime = NOW) -> quarantine.Quarantine:
    entry = replace(journal.begin(redis, "users", secrets.token_hex(4), {}), ingested=now)
    quarantine.keep(redis, raw, validate(USERS, raw), entry, request)
    return quarantine.read(redis, "users", 100)


def columns(**values: list[Any]) -> RawRows:
    return RawRows(dict(values), range(1, len(values["user_id"]) + 1))


def test_a_rejected_row_is_kept_with_everything_that_is_known_of_it(fake_redis: Redis) -> None:
    found = kept(fake_redis, columns(user_id=["u", "v"], x=[1.0, "much"], name=[None, "ü"]), "req-7")
    [row] = found.rows
    assert (found.rejected, found.kept) == (1, 1)
    assert row == quarantine.RejectedRow(
        row=2,
        column="x",
        value="much",
        reason="expected a finite number",
        content='{"user_id":"v","x":"much","name":"ü"}',
        ingest_time="2013-01-31T12:00:00.000000Z",
        request="req-7",
    )


def test_a_row_with_an_infinite_date_is_kept(fake_redis: Redis) -> None:
    infinite = pa.array([2**31 - 1], pa.int32()).view(pa.date32())
    table = pa.table({"user_id": ["u"], "x": pa.array([1.0]), "name": infinite})
    [row] = kept(fake_redis, RawRows({name: table[name] for name in table.column_names}, range(1, 2))).rows
    assert (row.column, row.reason) == ("name", "has type date32[day]; expected text")
    assert "2147483647" in row.content


ANY = Source(
    "any",
    entity=Entity("user", key="user_id"),
    event_time="at",
    columns={"x": float | None, "n": int | None, "flag": bool | None, "name": str | None},
)
GOOD = {"user_id": pa.array(["u"]), "at": pa.array(["2013-01-31"])}


def duckdb_columns(folder: Path) -> dict[str, pa.ChunkedArray]:
    """Least and greatest value of each type of DuckDB, and null, as they come in Parquet."""
    whole = "COLUMNS(lambda name: name NOT LIKE '%fixed%' AND name <> 'empty_struct')"  # others it cannot write
    duckdb.sql(f"COPY (SELECT {whole} FROM test_all_types()) TO '{folder}/all.parquet'")
    return {name: values for name, values in decode((folder / "all.parquet").read_bytes(), PARQUET).columns.items()
            if isinstance(values, pa.ChunkedArray)}  # fmt: skip


def test_a_value_of_any_type_of_duckdb_is_taken_or_kept_with_its_reason(tmp_path: Path) -> None:
    found = duckdb_columns(tmp_path)
    assert len(found) > 40
    for values in found.values():
        for place in ("user_id", "at", *ANY.columns):
            columns = {name: pa.chunked_array([one.take(pa.array([0] * len(values)))]) for name, one in GOOD.items()}
            raw = RawRows(columns | {place: values}, range(1, len(values) + 1))
            valid = validate(ANY, raw, NOW)
            assert valid.table.num_rows + valid.rejected == len(values)
            assert {rejection.column for rejection in valid.rejections} <= {place}
            assert len(list(quarantine.contents(raw, valid.rejections))) == valid.rejected


def test_rows_since_a_time_before_there_was_redis_are_all(fake_redis: Redis) -> None:
    kept(fake_redis, columns(user_id=[""], x=[1.0]))
    assert len(quarantine.read(fake_redis, "users", 10, datetime(1960, 1, 1, tzinfo=UTC)).rows) == 1


def test_it_reads_as_plain_text_in_redis(fake_redis: Redis) -> None:
    kept(fake_redis, columns(user_id=[""], x=[1.0]))
    [(_, entry)] = fake_redis.xrange("rejected:users")
    assert entry["content"] == '{"user_id":"","x":1.0}'
    assert list(entry) == ["row", "column", "value", "reason", "content", "ingest_time"]
    assert fake_redis.get("rejected:users:total") == "1"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_row_of_any_format_is_the_one_that_was_rejected(kind: str, fake_redis: Redis) -> None:
    content_type, write = FORMATS[kind]
    body = write(*({"user_id": key, "x": x} for key, x in (("a", 1.5), ("b", None), ("c", 2.5), ("", 3.5))))
    found = kept(fake_redis, decode(body, content_type))
    assert [(row.row, orjson.loads(row.content)["user_id"]) for row in found.rows] == [(4, ""), (2, "b")]


def test_a_line_that_is_no_row_is_kept_as_it_came(fake_redis: Redis) -> None:
    found = kept(fake_redis, decode(b"user_id,x\na,1\nb,2,3,4\nc,bad\n", "text/csv"))
    assert [(row.row, row.column, row.content) for row in found.rows] == [
        (3, "x", '{"user_id":"c","x":"bad"}'),
        (2, "", "b,2,3,4"),
    ]


@pytest.mark.parametrize(
    "values",
    [[math.nan], pa.chunked_array([pa.array([10**12], pa.timestamp("s"))]), [{"deep": [1]}], [2**63],
     pa.chunked_array([pa.array([b"\xff"])])],
    ids=["nan", "a year after 9999", "nested", "a large number", "bytes"],
)  # fmt: skip
def test_a_value_of_any_kind_can_be_kept(values: Any, fake_redis: Redis) -> None:
    [row] = kept(fake_redis, RawRows({"user_id": [""], "x": values}, range(1, 2))).rows
    assert list(orjson.loads(row.content)) == ["user_id", "x"]


def test_a_long_row_is_cut_and_marked(fake_redis: Redis) -> None:
    [row] = kept(fake_redis, columns(user_id=["u"], x=["much"], name=["ü" * 5000])).rows
    assert len(row.content.encode()) <= MAX_ROW_BYTES
    assert row.content.endswith("üü…")


def test_the_stream_is_bounded_and_the_rows_that_left_it_are_known(fake_redis: Redis) -> None:
    bad = columns(user_id=[""] * (MAX_LENGTH + 5), x=[1.0] * (MAX_LENGTH + 5))
    first, second = kept(fake_redis, bad), kept(fake_redis, bad)
    assert (first.rejected, second.rejected) == (MAX_LENGTH + 5, 2 * (MAX_LENGTH + 5))
    assert second.kept <= MAX_LENGTH + 100


def test_good_rows_leave_no_trace(fake_redis: Redis) -> None:
    assert kept(fake_redis, columns(user_id=["u"], x=[1.0])) == quarantine.Quarantine(0, 0, [])
    assert fake_redis.keys("rejected:*") == []


# --- over HTTP


def test_rejected_rows_are_shown_newest_first_with_totals(users: Room) -> None:
    users.post("users", csv_rows(ROW, BAD), on_error="skip")
    users.post("users", csv_rows(BAD | {"user_id": "w"}, ROW), on_error="skip")
    found = users.http.get("/sources/users/rejected").get_json()
    assert (found["source"], found["rejected"], found["kept"]) == ("users", 2, 2)
    assert [orjson.loads(row["content"])["user_id"] for row in found["rows"]] == ["w", "v"]
    assert users.http.get("/sources/users/rejected?count=1").get_json()["rows"] == found["rows"][:1]


def test_rejected_rows_never_reach_history_or_features(users: Room) -> None:
    users.post("users", csv_rows(ROW, BAD), on_error="skip")
    assert users.history("users")["user_id"].to_pylist() == ["u"]
    assert users.http.get("/entities/user/v").status_code == 404


def test_of_a_refused_request_nothing_is_kept(users: Room) -> None:
    users.post("users", csv_rows(ROW, BAD))
    assert users.http.get("/sources/users/rejected").get_json()["rejected"] == 0


def test_the_id_of_the_request_is_kept(users: Room) -> None:
    users.http.post(
        "/sources/users/rows?on_error=skip", data=csv_rows(BAD), content_type="text/csv", headers={"X-Request-ID": "r1"}
    )
    assert users.http.get("/sources/users/rejected").get_json()["rows"][0]["request"] == "r1"


def test_rows_from_before_a_time_are_left_out(users: Room) -> None:
    users.post("users", csv_rows(BAD), on_error="skip")
    for since, rows in ((timedelta(hours=-1), 1), (timedelta(hours=1), 0)):
        query = {"since": (datetime.now(UTC) + since).isoformat()}
        assert len(users.http.get("/sources/users/rejected", query_string=query).get_json()["rows"]) == rows


def test_quarantined_rows_are_counted(users: Room) -> None:
    line = 'modelmill_quarantined_rows_total{source="users"}'
    before = metric(users.http, line)
    users.post("users", csv_rows(ROW, BAD), on_error="skip")
    assert metric(users.http, line) - before == 1


@pytest.mark.parametrize(
    "query, detail",
    [("count=0", "count='0'; expected a whole number from 1 to 1000"), ("count=1001", "count='1001'"),
     ("count=ten", "count='ten'"), ("since=soon", "since is 'soon'; expected a time such as")],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_says_why(query: str, detail: str, users: Room) -> None:
    answer = users.http.get(f"/sources/users/rejected?{query}")
    assert (answer.status_code, detail in answer.get_json()["detail"]) == (422, True)


def test_an_unknown_source_is_a_404_with_the_nearest(users: Room) -> None:
    answer = users.http.get("/sources/user/rejected")
    assert answer.status_code == 404
    assert "did you mean 'users'" in answer.get_json()["detail"]
