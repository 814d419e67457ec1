from __future__ import annotations

import gzip
from typing import Any

import pytest

from examples.users import data
from modelmill.settings import Settings
from services.feature.app import feature_app
from tests.feature.conftest import FORMATS, ROW, OpenRoom, Room, csv_rows, json_rows, metric

USER = data.EXAMPLE_USER


def test_the_article_s_file_is_taken_as_it_is(users: Room, users_csv: bytes) -> None:
    answer = users.post("users", users_csv)
    assert (answer.status_code, answer.json["accepted"], answer.json["rejected"]) == (201, 100, 0)  # type: ignore[index]
    found = users.http.get(f"/entities/user/{USER}").get_json()
    assert found["features"] == {
        "feature_1": -0.12334622948567198,
        "feature_2": 0.36527508968771305,
        "target": 1,
        "feature_3": (-0.12334622948567198) ** 2,
    }


def test_the_example_s_own_file_is_taken_as_it_is(users: Room, tmp_path: Any) -> None:
    data.write(tmp_path / "users.csv")
    answer = users.post("users", (tmp_path / "users.csv").read_bytes())
    assert (answer.status_code, answer.json["accepted"]) == (201, data.ROWS)  # type: ignore[index]
    assert users.http.get(f"/entities/user/{USER}").status_code == 200


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_of_any_format_are_there_at_once(kind: str, users: Room) -> None:
    content_type, write = FORMATS[kind]
    answer = users.post("users", write(ROW, ROW | {"user_id": "v"}), content_type)
    assert (answer.status_code, answer.json["accepted"]) == (201, 2)  # type: ignore[index]
    assert users.http.get("/entities/user/v").get_json()["features"]["feature_3"] == 9.0


def test_a_bad_row_is_told_with_row_column_value_and_what_was_expected(users: Room) -> None:
    answer = users.post("users", csv_rows(ROW, ROW | {"user_id": "v", "feature_1": "much"}))
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    problem = answer.get_json()
    assert problem["reasons"] == [
        {"row": 2, "column": "feature_1", "value": "much", "reason": "expected a finite number"}
    ]
    assert (problem["source"], problem["rejected"], problem["rows"]) == ("users", 1, 2)


def test_with_a_bad_row_nothing_is_stored(users: Room) -> None:
    users.post("users", csv_rows(ROW, ROW | {"user_id": "v", "feature_1": "much"}))
    assert users.http.get("/entities/user/u").status_code == 404
    assert users.history("users").num_rows == 0


def test_the_good_rows_are_kept_where_the_caller_asks(users: Room) -> None:
    answer = users.post("users", csv_rows(ROW, ROW | {"user_id": "v", "feature_1": "much"}), on_error="skip")
    assert answer.status_code == 201
    assert (answer.json["accepted"], answer.json["rejected"]) == (1, 1)  # type: ignore[index]
    assert answer.json["reasons"][0]["row"] == 2  # type: ignore[index]
    assert users.http.get("/entities/user/u").status_code == 200


def test_a_truncated_csv_is_refused_by_the_line_where_it_ends(users: Room, tmp_path: Any) -> None:
    data.write(tmp_path / "users.csv")
    whole = (tmp_path / "users.csv").read_bytes()
    answer = users.post("users", whole[: whole.rindex(b",")])
    assert answer.status_code == 422
    assert answer.get_json()["reasons"][0]["reason"] == "has 4 columns; expected 5"
    assert answer.get_json()["reasons"][0]["row"] == data.ROWS


@pytest.mark.parametrize("key", ["x" * 10_000, "a\nb", "a\0b"])
def test_a_key_that_nobody_could_read_is_refused_by_name(key: str, users: Room) -> None:
    answer = users.post("users", json_rows(ROW | {"user_id": key}), "application/json")
    assert answer.status_code == 422
    assert answer.get_json()["reasons"][0]["column"] == "user_id"


BAD_REQUESTS: dict[str, tuple[str, bytes, str, dict[str, str], int, str]] = {
    "unknown source": ("user", b"a\n1\n", "text/csv", {}, 404, "source 'user' is not known; did you mean 'users'?"),
    "unknown format": ("users", b"a\n1\n", "text/plain", {}, 415, "'text/plain' is not taken here; expected one of"),
    "no format": ("users", b"a\n1\n", "", {}, 415, "is not taken here"),
    "no rows": ("users", b"", "text/csv", {}, 400, "the body is empty; expected rows"),
    "wrong on_error": ("users", b"a\n1\n", "text/csv", {"on_error": "maybe"}, 422, "on_error='maybe'; expected fail or"),
    "missing column": ("users", b"user_id,feature_1\nu,1\n", "text/csv", {}, 422, "column 'feature_2' of source 'users' is"),
    "undeclared column": ("users", b"user_idd\nu\n", "text/csv", {}, 422, "'user_idd' is not declared in source 'users'"),
    "column twice": ("users", b"a,a\n1,2\n", "text/csv", {}, 422, "column 'a' is there 2 times; expected once"),
    "NaN in JSON": ("users", b'[{"a": NaN}]', "application/json", {}, 400, "the body is not JSON"),
    "cut off Parquet": ("users", b"PAR1", "application/vnd.apache.parquet", {}, 400, "not a complete Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "body", "kind", "query", "status", "detail"), BAD_REQUESTS.values(), ids=BAD_REQUESTS
)
def test_a_request_that_cannot_be_taken_says_why(
    source: str, body: bytes, kind: str, query: dict[str, str], status: int, detail: str, users: Room
) -> None:
    answer = users.post(source, body, kind, **query)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert detail in answer.get_json()["detail"]


def test_a_body_over_the_limit_is_refused(users: Room) -> None:
    http = feature_app(users.catalogue, Settings(max_body_bytes=100)).test_client()
    answer = http.post("/sources/users/rows", data=csv_rows(*[ROW] * 50), content_type="text/csv")
    assert answer.status_code == 413
    assert "over the limit of 100" in answer.get_json()["detail"]


def test_rows_that_are_packed_with_gzip_are_the_same_rows(open_room: OpenRoom) -> None:
    room = open_room("""
        from modelmill import Entity, Source
        user = Entity("user", key="user_id")
        Source("users", entity=user, event_time="at", columns={"x": float})
    """)
    body = csv_rows({"user_id": "u", "at": "2026-01-01T00:00:00Z", "x": 1.5})
    packed = {"data": gzip.compress(body), "content_type": "text/csv", "headers": {"Content-Encoding": "gzip"}}
    assert room.http.post("/sources/users/rows", **packed).get_json()["accepted"] == 1
    assert room.post("users", body).get_json()["duplicate"] == 1


def test_rows_are_counted_by_what_became_of_them(users: Room) -> None:
    lines = [f'modelmill_rows_total{{outcome="{o}",source="users"}}' for o in ("accepted", "rejected")]
    before = [metric(users.http, line) for line in lines]
    bad = csv_rows(ROW, ROW | {"feature_1": "much"})
    users.post("users", bad)
    users.post("users", bad, on_error="skip")
    assert [metric(users.http, line) - then for line, then in zip(lines, before, strict=True)] == [1, 2]


def test_failed_features_are_told_and_counted(open_room: OpenRoom) -> None:
    room = open_room("""
        from modelmill import Entity, Source, feature
        user = Entity("user", key="user_id")
        users = Source("users", entity=user, columns={"x": float})

        @feature(user, dtype=float)
        def inverse_for_counting(row):
            return 1 / row["x"]
    """)
    line = 'modelmill_failed_features_total{feature="inverse_for_counting"}'
    before = metric(room.http, line)
    answer = room.post("users", b"user_id,x\nu,0\nv,2\n")
    assert answer.get_json()["failed_features"] == {"inverse_for_counting": 1}
    assert metric(room.http, line) - before == 1
    failed = room.http.get("/entities/user/u").get_json()
    assert failed["features"] == {"x": 0.0, "inverse_for_counting": None}
    assert failed["failed"] == {"inverse_for_counting": "ZeroDivisionError: float division by zero"}


def test_a_function_that_would_end_the_process_fails_on_its_row_and_the_batch_is_stored(open_room: OpenRoom) -> None:
    room = open_room("""
        from modelmill import Entity, Source, feature
        user = Entity("user", key="user_id")
        users = Source("users", entity=user, columns={"x": float})

        @feature(user, dtype=float, max_failed=1)
        def f(row):
            return row["x"] if row["x"] < 10 else exit("too large")
    """)
    answer = room.post("users", b"user_id,x\nu,1\nv,10\n")
    assert (answer.status_code, answer.get_json()["failed_features"]) == (201, {"f": 1})
    assert room.http.get("/entities/user/u").get_json()["features"] == {"x": 1.0, "f": 1.0}
    assert room.http.get("/entities/user/v").get_json()["failed"] == {"f": "SystemExit: too large"}
