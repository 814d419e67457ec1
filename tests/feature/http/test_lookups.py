from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from services.feature.http.rows import MAX_LOOKUP
from tests.feature.conftest import FORMATS, ROW, OpenRoom, Room


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
