from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelmill.errors import CorruptFeature, UnknownName
from modelmill.state import keys
from services.feature.intake import ingest as ingest_module
from services.feature.proof.explain import Explained, Explanation, explain
from services.feature.proof.forget import forget
from services.feature.upkeep.statistics import StatisticsFiles
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float, "note": str | None}, max_age="30d")
visits = Source("visits", entity=user, columns={"clicks": int})

@feature(users, dtype=float)
def inverse(row):
    return 1 / row["x"]
"""
NOW = datetime.now(UTC)


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def ago(**length: float) -> str:
    return (NOW - timedelta(**length)).isoformat()


def explained(room: Room, key: str = "u", **more: Any) -> Explanation:
    return explain(room.redis, room.catalogue.storage, room.catalogue.definitions, "user", key, **more)


def told(found: Explanation) -> dict[str, tuple[Any, str]]:
    return {name: (one.value, one.status) for name, one in found.features.items()}


def test_each_value_has_the_row_that_it_comes_from(room: Room) -> None:
    done = room.ingest("users", [{"user_id": "u", "at": ago(days=1), "x": 4.0, "note": "a"}])
    found = explained(room)
    x, inverse = found.features["x"], found.features["inverse"]
    assert (x.value, x.status, x.why, x.source, x.field) == (4.0, "present", "the newest row", "users", "x")
    assert (x.event_time, x.ingest_time) == (ago(days=1).replace("+00:00", "Z"), done.ingest_time)
    assert x.age_seconds is not None
    assert x.age_seconds == pytest.approx((datetime.now(UTC) - NOW + timedelta(days=1)).total_seconds(), abs=30)
    assert inverse.value == 0.25
    assert inverse.field == f"inverse@{room.catalogue.definitions.features['users']['inverse'].version}"
    row = found.sources["users"]
    assert (row.file, row.chosen, row.online_equals_history) == (done.file, "the only row", True)
    assert row.row == {"user_id": "u", "x": 4.0, "note": "a", inverse.field: 0.25}


def test_a_value_that_is_not_there_has_the_reason(room: Room) -> None:
    room.ingest("users", [
        {"user_id": "u", "at": ago(days=1), "x": 0.0},
        {"user_id": "old", "at": ago(days=31), "x": 1.0},
    ])  # fmt: skip
    features = explained(room).features
    assert {name: (one.status, one.why) for name, one in features.items()} == {
        "x": ("present", "the newest row"),
        "note": ("missing", "the row has no value"),
        "inverse": ("failed", "its function failed with ZeroDivisionError: float division by zero"),
        "clicks": ("missing", "no row of source 'visits' is online for user 'u'"),
    }
    old: Explained = explained(room, "old").features["x"]
    since = ago(days=1).replace("+00:00", "Z")
    assert (old.value, old.status) == (None, "expired")
    assert old.why == f"expired since {since}: source 'users' allows 30d"


@pytest.fixture
def late(room: Room) -> Room:
    """7 is about 2013-01-10 and was ingested last."""
    room.ingest(
        "users", [{"user_id": "u", "at": "2013-01-05", "x": 5.0}, {"user_id": "v", "at": "2013-01-05", "x": 0.5}]
    )
    room.ingest("users", [{"user_id": "u", "at": "2013-01-15", "x": 6.0}])
    room.ingest("users", [{"user_id": "u", "at": "2013-01-10", "x": 7.0}])
    return room


@pytest.mark.parametrize(
    ("day", "value", "status", "chosen"),
    [
        (4, None, "missing", "no row of source 'users' for user 'u' with event time <= 2013-01-04T00:00:00.000000Z"),
        (5, 5.0, "present", "the only row with event time <= 2013-01-05T00:00:00.000000Z"),
        (11, 7.0, "present", "the newest of 2 rows with event time <= 2013-01-11T00:00:00.000000Z"),
        (20, 6.0, "present", "the newest of 3 rows with event time <= 2013-01-20T00:00:00.000000Z"),
    ],
)
def test_at_a_time_it_is_what_a_training_frame_sees(
    day: int, value: float | None, status: str, chosen: str, late: Room
) -> None:
    found = explained(late, at=datetime(2013, 1, day, tzinfo=UTC))
    assert told(found)["x"] == (value, status)
    assert found.sources["users"].chosen == chosen
    assert found.sources["users"].online_equals_history is None


def test_at_a_time_long_after_the_last_row_it_is_expired(late: Room) -> None:
    found = explained(late, at=datetime(2013, 3, 1, tzinfo=UTC)).features["x"]
    assert (found.value, found.why) == (
        None,
        "expired since 2013-02-14T00:00:00.000000Z: source 'users' allows 30d",
    )


def test_as_of_what_was_known_rows_that_came_later_are_hidden(room: Room) -> None:
    room.ingest("users", [{"user_id": "u", "at": ago(days=3), "x": 5.0}])
    between = datetime.now(UTC)
    room.ingest("users", [{"user_id": "u", "at": ago(days=2), "x": 6.0}])
    assert told(explained(room, at=between, as_of="known"))["x"] == (5.0, "present")
    assert told(explained(room, at=between, as_of="event"))["x"] == (6.0, "present")
    before = explained(room, at=NOW - timedelta(days=1), as_of="known")
    assert before.features["x"].why.endswith("and ingested by then")


def test_of_rows_with_one_event_time_it_says_which_won(room: Room) -> None:
    same = {"user_id": "u", "at": ago(days=1)}
    room.ingest("users", [{**same, "x": 1.0}])
    room.ingest("users", [{**same, "x": 2.0}])
    assert (
        explained(room).sources["users"].chosen
        == "the newest of 2 rows; 2 have this event time, of which it was ingested last"
    )
    room.ingest("users", [{**same, "x": 3.0}, {**same, "x": 4.0}])
    found = explained(room)
    assert found.features["x"].value == 4.0
    assert found.sources["users"].chosen == (
        "the newest of 4 rows; 4 have this event time, of which it stood last in what was ingested last"
    )


def test_a_row_that_is_about_the_future_is_said_to_be(room: Room) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=3)  # not of NOW, which may be longer ago
    room.ingest("users", [{"user_id": "u", "at": ahead.isoformat(), "x": 1.0}])
    x = explained(room).features["x"]
    assert x.why == f"the newest row, though its event time {x.event_time} is yet to come"
    assert x.age_seconds is not None
    assert x.age_seconds < 0


def test_an_online_value_that_is_not_in_the_history_is_shown(room: Room) -> None:
    room.ingest("users", [{"user_id": "u", "at": ago(days=1), "x": 4.0}])
    room.redis.hset(keys.feature("user", "u"), "x", "4.000000000000001")
    found = explained(room)
    assert found.features["x"].value == 4.000000000000001
    assert found.sources["users"].row is not None
    assert found.sources["users"].row["x"] == 4.0
    assert found.sources["users"].online_equals_history is False


def test_a_row_that_did_not_come_online_is_shown(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    done = room.ingest("users", [{"user_id": "u", "at": ago(days=2), "x": 4.0}])
    monkeypatch.setattr(ingest_module, "_write_online", lambda *_: 0)
    newer = room.ingest(
        "users", [{"user_id": "u", "at": ago(days=1), "x": 5.0}, {"user_id": "v", "at": ago(days=1), "x": 1.0}]
    )
    row = explained(room).sources["users"]
    assert (row.file, row.online_equals_history) == (done.file, False)
    assert row.chosen == (
        f"the history has a newer row, of {ago(days=1).replace('+00:00', 'Z')} ingested at {newer.ingest_time}"
    )
    absent = explained(room, "v").sources["users"]
    assert (absent.file, absent.online_equals_history) == (newer.file, False)
    assert absent.chosen == "no row of source 'users' is online for user 'v', but this one is in the history"


def test_a_row_that_only_the_online_store_has_is_shown(room: Room) -> None:
    room.redis.hset(
        keys.feature("user", "u"), mapping={"x": "1.0", "_time.users": " ".join([ago(days=1)[:26] + "Z"] * 2)}
    )
    row = explained(room).sources["users"]
    assert (row.row, row.chosen, row.online_equals_history) == (None, "the history has no row of it", False)


def test_an_entity_of_which_there_is_nothing_has_only_reasons(room: Room) -> None:
    found = explained(room, "nobody")
    assert {one.status for one in found.features.values()} == {"missing"}
    assert {one.online_equals_history for one in found.sources.values()} == {True}


def test_one_that_was_forgotten_is_said_to_be(room: Room) -> None:
    room.ingest("users", [{"user_id": "u", "at": ago(days=1), "x": 4.0}])
    receipt = forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", "u")
    assert explained(room).forgotten == receipt.ended


def test_a_text_that_is_no_value_is_named(room: Room) -> None:
    room.ingest("users", [{"user_id": "u", "at": ago(days=1), "x": 4.0}])
    room.redis.hset(keys.feature("user", "u"), "x", "much")
    with pytest.raises(CorruptFeature, match="feature 'x' of user 'u' is stored as 'much'; expected a finite number"):
        explained(room)


def test_over_http(room: Room) -> None:
    room.ingest("users", [{"user_id": "a/b c", "at": "2013-01-05", "x": 4.0}])
    answer = room.http.get("/entities/user/a%2Fb%20c/explain", query_string={"at": "2013-01-06T00:00:00Z"})
    assert (answer.status_code, answer.get_json()["features"]["x"]["value"]) == (200, 4.0)
    assert room.http.get("/entities/user/u/explain").get_json()["as_of"] == "online"
    assert room.http.get("/entities/user/u/explain?as_of=then").status_code == 422
    assert room.http.get("/entities/user/u/explain?at=then").status_code == 422
    for far in ("0001-01-02", "9998-01-01"):
        answer = room.http.get(f"/entities/user/u/explain?at={far}")
        assert (answer.status_code, answer.get_json()["detail"][:16]) == (422, f"at is {far}")
    assert room.http.get("/entities/usr/u/explain").status_code == 404
    with pytest.raises(UnknownName):
        explain(room.redis, room.catalogue.storage, room.catalogue.definitions, "usr", "u")
