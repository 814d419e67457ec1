from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from examples.users import data
from modelmill.connections import connect
from modelmill.redis_server import free_port
from modelmill.settings import Settings
from services.feature.app import MAX_LOOKUP, feature_app
from tests.eventually import eventually
from tests.feature.conftest import FORMATS, OpenRoom, Room, csv_rows, json_rows

USER = data.EXAMPLE_USER
ROW = {"user_id": "u", "feature_1": 3.0, "feature_2": -0.5, "target": 1}


def metric(http: FlaskClient, line: str) -> float:
    """The value of one line of `/metrics`, or 0."""
    lines = http.get("/metrics").text.splitlines()
    return next((float(text.split()[-1]) for text in lines if text.startswith(line)), 0.0)


# --- rows in


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


# --- entities out


@pytest.mark.parametrize("key", ["plain", "a:b", "with space", "ü", "a/b", "a%2Fb", "lookup", "?", "#"])
def test_an_entity_is_found_by_any_key(key: str, users: Room) -> None:
    users.ingest("users", [ROW | {"user_id": key}])
    quoted = "".join(f"%{byte:02X}" for byte in key.encode())
    answer = users.http.get(f"/entities/user/{quoted}")
    assert (answer.status_code, answer.get_json()["key"]) == (200, key)


@pytest.mark.parametrize("key", ["a:b", "with  space", "ü/ñ", "日本", "🙂", "a:b:c d%20e"])
@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_a_key_is_the_same_in_the_request_in_redis_and_in_a_lookup(kind: str, key: str, users: Room) -> None:
    content_type, write = FORMATS[kind]
    assert users.post("users", write(ROW | {"user_id": key}), content_type).status_code == 201
    assert users.online("user", key)["feature_1"] == "3.0"
    found = users.http.post("/entities/user/lookup", json={"keys": [key]}).get_json()["entities"]
    assert found[key]["features"]["feature_1"] == 3.0
    assert users.http.get(f"/entities/user/{quote(key, safe='')}").get_json()["key"] == key


@pytest.mark.parametrize("key", ["x" * 10_000, "a\nb", "a\0b"])
def test_a_key_that_nobody_could_read_is_refused_by_name(key: str, users: Room) -> None:
    answer = users.post("users", json_rows(ROW | {"user_id": key}), "application/json")
    assert answer.status_code == 422
    assert answer.get_json()["reasons"][0]["column"] == "user_id"


def test_an_entity_says_how_fresh_it_is(users: Room) -> None:
    users.ingest("users", [ROW])
    times = users.http.get("/entities/user/u").get_json()["event_times"]
    assert datetime.now(UTC) - datetime.fromisoformat(times["users"]) < timedelta(minutes=1)


def test_an_entity_that_is_not_there_is_a_404_with_its_key(users: Room) -> None:
    answer = users.http.get("/entities/user/nobody")
    assert answer.status_code == 404
    assert "user 'nobody' has no features: no row with this key has been ingested" in answer.get_json()["detail"]


@pytest.mark.parametrize("call", ["get", "post"])
def test_an_unknown_entity_is_a_404_with_the_nearest(call: str, users: Room) -> None:
    answer = users.http.get("/entities/usr/u") if call == "get" else users.http.post("/entities/usr/lookup", json={})
    assert answer.status_code == 404
    assert "entity 'usr' is not known; did you mean 'user'?" in answer.get_json()["detail"]


def test_several_entities_are_looked_up_at_once(users: Room) -> None:
    users.ingest("users", [ROW, ROW | {"user_id": "v", "feature_1": 1.0}])
    found = users.http.post("/entities/user/lookup", json={"keys": ["v", "nobody", "u"]}).get_json()["entities"]
    assert list(found) == ["v", "nobody", "u"]
    assert (found["v"]["features"]["feature_1"], found["nobody"]) == (1.0, None)


@pytest.mark.parametrize("keys", [None, "u", [1], {"u": 1}])
def test_keys_to_look_up_are_a_list_of_texts(keys: object, users: Room) -> None:
    answer = users.http.post("/entities/user/lookup", json={"keys": keys})
    assert answer.status_code == 422
    assert f"keys is {keys!r}; expected a list of texts" in answer.get_json()["detail"]


def test_too_many_keys_are_refused(users: Room) -> None:
    answer = users.http.post("/entities/user/lookup", json={"keys": ["u"] * (MAX_LOOKUP + 1)})
    assert answer.status_code == 413
    assert (
        f"keys: {MAX_LOOKUP + 1} is over the limit of {MAX_LOOKUP}; send smaller parts" in answer.get_json()["detail"]
    )


AGING = """
    from modelmill import Entity, Source, feature
    user = Entity("user", key="user_id")
    visits = Source("visits", entity=user, event_time="at", max_age="1h", columns={"pages": int, "note": str | None})
    users = Source("users", entity=user, event_time="at", columns={"x": float})

    @feature(users, dtype=float)
    def inverse(row):
        return 1 / row["x"]

    Source("orders", entity=user, columns={"total": float})
"""
HOUR = timedelta(hours=1)


@pytest.fixture
def aging(open_room: OpenRoom) -> Room:
    """Users of which `u` was seen an hour and a minute ago, and `v` half an hour ago."""
    room, now = open_room(AGING), datetime.now(UTC)
    ago = {"u": now - HOUR - timedelta(minutes=1), "v": now - HOUR / 2}
    room.ingest("visits", [{"user_id": key, "pages": 3, "at": time.isoformat()} for key, time in ago.items()])
    room.ingest("users", [{"user_id": "u", "x": 0.0, "at": now.isoformat()}])
    return room


def test_expired_values_are_null(aging: Room) -> None:
    features = [aging.http.get(f"/entities/user/{key}").get_json()["features"]["pages"] for key in "uv"]
    assert features == [None, 3]


def test_detail_tells_why_each_value_is_there_or_not(aging: Room) -> None:
    of_u, of_v = (aging.http.get(f"/entities/user/{key}?detail=true").get_json()["features"] for key in "uv")
    statuses = {name: value["status"] for name, value in of_u.items()}
    assert statuses == {"pages": "expired", "note": "expired", "x": "present", "inverse": "failed", "total": "missing"}
    assert of_u["inverse"]["error"] == "ZeroDivisionError: float division by zero"
    assert [of_v[name]["status"] for name in ("pages", "note", "x")] == ["present", "missing", "missing"]


def test_detail_tells_age_times_and_source_of_each_value(aging: Room) -> None:
    pages = aging.http.get("/entities/user/v?detail=true").get_json()["features"]["pages"]
    assert pages.keys() == {"value", "status", "age_seconds", "event_time", "ingest_time", "source", "error"}
    assert (pages["value"], pages["source"], pages["error"]) == (3, "visits", None)
    assert 1800 <= pages["age_seconds"] < 1860
    assert pages["event_time"] < pages["ingest_time"]
    nothing = aging.http.get("/entities/user/v?detail=true").get_json()["features"]["total"]
    assert [nothing[name] for name in ("value", "age_seconds", "event_time", "ingest_time")] == [None] * 4
    assert nothing["source"] == "orders"


def test_an_aggregate_does_not_expire_with_its_sources_newest_row(open_room: OpenRoom) -> None:
    room = open_room("""
        from modelmill import Aggregate, Entity, Source
        user = Entity("user", key="user_id")
        visits = Source("visits", entity=user, event_time="at", max_age="1h", columns={"pages": int})
        Aggregate(visits, "pages", "sum", window="1d", hop="1h", name="pages_today")
        Aggregate(visits, "pages", "mean", window="1h", hop="1h", name="pages_lately")
    """)
    then = datetime.now(UTC) - timedelta(hours=5)
    room.ingest("visits", [{"user_id": "u", "pages": 3, "at": then.isoformat()}])
    found = room.http.get("/entities/user/u?detail=true").get_json()["features"]
    told = {name: (one["value"], one["status"], one["event_time"] is None) for name, one in found.items()}
    assert told == {
        "pages": (None, "expired", False),
        "pages_today": (3, "present", True),
        "pages_lately": (None, "missing", True),
    }


def test_a_lookup_tells_the_same_details(aging: Room) -> None:
    body = {"keys": ["u", "nobody"], "detail": True}
    found = aging.http.post("/entities/user/lookup", json=body).get_json()["entities"]
    alone = aging.http.get("/entities/user/u?detail=true").get_json()["features"]
    for one in (*alone.values(), *found["u"]["features"].values()):
        one.pop("age_seconds")
    assert found == {"u": {"features": alone}, "nobody": None}
    assert aging.http.get("/entities/user/nobody?detail=true").status_code == 404


def test_detail_is_true_or_false(users: Room) -> None:
    answer = users.http.get("/entities/user/u?detail=much")
    assert (answer.status_code, answer.get_json()["detail"]) == (422, "detail='much'; expected true or false")
    answer = users.http.post("/entities/user/lookup", json={"keys": [], "detail": 1})
    assert (answer.status_code, answer.get_json()["detail"]) == (422, "detail is 1; expected true or false")


# --- definitions


def test_features_are_listed(users: Room) -> None:
    names = [feature["name"] for feature in users.http.get("/features").get_json()["features"]]
    assert names == ["feature_1", "feature_2", "target", "feature_3"]


def until_done(room: Room) -> dict[str, Any] | None:
    state: dict[str, Any] = room.http.get("/features/backfill").get_json()
    return state if state["state"] != "running" else None


def test_applying_tells_what_changed_and_how_many_rows_were_computed_anew(users: Room) -> None:
    users.ingest("users", [ROW])
    path = users.catalogue.path
    path.write_text(path.read_text().replace("** 2", "** 3"))
    begun = users.http.post("/features")
    assert begun.status_code == 202
    assert [change.split(":")[0] for change in begun.get_json()["changes"]] == ["features"]
    state = eventually(lambda: until_done(users), within=10, saying="the features are computed")
    assert (state["state"], state["rows"], state["total"]) == ("done", 1, 1)
    assert users.http.get("/entities/user/u").get_json()["features"]["feature_3"] == 27.0


def test_a_dry_run_tells_and_does_nothing(users: Room) -> None:
    users.ingest("users", [ROW])
    path = users.catalogue.path
    path.write_text(path.read_text().replace('"feature_2": float', '"feature_2": int').replace("** 2", "** 3"))
    planned = users.http.post("/features", json={"dry_run": True}).get_json()
    assert len(planned["changes"]) >= 2
    assert "stored values have the former type; declare a new column instead" in planned["refusals"][0]
    assert users.http.get("/entities/user/u").get_json()["features"]["feature_3"] == 9.0


def test_a_refused_change_is_a_409_with_the_reasons(users: Room) -> None:
    users.ingest("users", [ROW])
    path = users.catalogue.path
    path.write_text(path.read_text().replace('"feature_2": float', '"feature_2": int'))
    answer = users.http.post("/features", json={})
    assert answer.status_code == 409
    assert answer.get_json()["reasons"] == [
        "source:users column.feature_2: float -> int: stored values have the former type; declare a new column instead"
    ]


def test_a_mistake_in_the_definitions_is_a_422_with_file_and_line(users: Room) -> None:
    users.catalogue.path.write_text("x = 1\ny = nothing\n")
    answer = users.http.post("/features")
    assert answer.status_code == 422
    assert f"{users.catalogue.path}:2: NameError: name 'nothing' is not defined" in answer.get_json()["detail"]
    assert users.http.get("/features").status_code == 200


def test_a_file_other_than_the_one_that_was_checked_is_a_409(users: Room) -> None:
    assert users.http.post("/features", json={"fingerprint": "0" * 64}).status_code == 409


# --- training frames


@pytest.mark.parametrize("accept", [None, "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"])
def test_a_training_frame_comes_as_parquet_or_arrow(accept: str | None, users: Room) -> None:
    users.ingest("users", [ROW, ROW | {"user_id": "v"}])
    headers = {"Accept": accept} if accept else {}
    answer = users.http.post("/training-frames", json={"model": "user_target"}, headers=headers)
    if accept and "arrow" in accept:
        frame = pa.ipc.open_stream(answer.data).read_pandas()
    else:
        frame = pd.read_parquet(io.BytesIO(answer.data))
    assert answer.content_type == (accept or "application/vnd.apache.parquet")
    assert list(frame.columns) == ["_event_time", "feature_1", "feature_2", "feature_3", "target"]
    assert frame["feature_3"].tolist() == [9.0, 9.0]


def test_a_training_frame_is_cut_by_time(users: Room) -> None:
    users.ingest("users", [ROW])
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert users.http.post("/training-frames", json={"model": "user_target", "end": later}).status_code == 200
    answer = users.http.post("/training-frames", json={"model": "user_target", "start": later})
    assert answer.status_code == 409
    assert "source 'users' has no rows to train 'user_target' on from" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "model is None; expected a text"),
        ({"model": 3}, 422, "model is 3; expected a text"),
        ({"model": "user_tarpet"}, 404, "model 'user_tarpet' is not known; did you mean 'user_target'?"),
        ({"model": "user_target", "start": "soon"}, 422, "start is 'soon'; expected a time such as"),
        ({"model": "user_target", "end": 5}, 422, "end is 5; expected a time such as"),
    ],
)
def test_a_frame_that_cannot_be_made_says_why(body: dict[str, Any], status: int, detail: str, users: Room) -> None:
    answer = users.http.post("/training-frames", json=body)
    assert answer.status_code == status
    assert detail in answer.get_json()["detail"]


# --- redis away


def test_while_redis_is_away_every_call_that_needs_it_is_a_503(users: Room) -> None:
    users.catalogue.redis = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)
    http = feature_app(users.catalogue, Settings()).test_client()
    answers = [
        http.post("/sources/users/rows", json=ROW),
        http.get("/entities/user/u"),
        http.post("/entities/user/lookup", json={"keys": ["u"]}),
        http.post("/features"),
    ]
    assert [(a.status_code, a.headers["Retry-After"]) for a in answers] == [(503, "1")] * 4
    assert users.history("users").num_rows == 0
    assert http.get("/readyz").status_code == 503
    assert http.get("/livez").status_code == 200
    assert http.get("/features").status_code == 200


def test_every_route_is_described(users: Room) -> None:
    paths = users.http.get("/openapi.json").get_json()["paths"]
    described = {f"{method.upper()} {path}" for path, calls in paths.items() for method in calls}
    assert described >= {
        "POST /sources/{source}/rows",
        "GET /entities/{entity}/{key}",
        "POST /entities/{entity}/lookup",
        "GET /features",
        "POST /features",
        "POST /training-frames",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
    }
    assert all(call["summary"] for calls in paths.values() for call in calls.values())
