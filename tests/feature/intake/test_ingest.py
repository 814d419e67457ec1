from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisAway

from modelmill.errors import InvalidRows, UnknownName
from modelmill.local import free_port
from modelmill.state import bus, keys
from modelmill.state.connections import connect
from modelmill.state.events import RowsIngested
from modelmill.storage import Storage
from services.feature.intake.decode import RawRows
from services.feature.intake.ingest import ingest
from services.feature.store import history
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
item = Entity("item", key="item_id")
users = Source("users", entity=user, event_time="at", columns={"x": float, "note": str | None})
clicks = Source("clicks", entities=[user, item], columns={"clicked": bool})

@feature(user, dtype=float)
def inverse(row):
    return 1 / row["x"]

@feature(user, dtype=float)
def double(row):
    return row["x"] * 2
"""
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def row(key: str = "u", at: int = 0, x: float | None = 2.0, **more: Any) -> dict[str, Any]:
    return {"user_id": key, "at": (NOON + timedelta(hours=at)).isoformat(), "x": x, **more}


def test_rows_are_in_history_and_online_with_their_features(room: Room) -> None:
    done = room.ingest("users", [row()])
    assert (done.accepted, done.rejected, done.failed_features) == (1, 0, {})
    [stored] = room.history("users").to_pylist()
    assert (stored["user_id"], stored["x"], stored["inverse"], stored["double"]) == ("u", 2.0, 0.5, 4.0)
    online = room.online("user", "u")
    assert (online["x"], online["inverse"], online["double"]) == ("2.0", "0.5", "4.0")


def test_a_row_has_its_own_time_and_that_of_its_ingest(room: Room) -> None:
    room.ingest("users", [row(at=-3)])
    [stored] = room.history("users").to_pylist()
    assert stored["_event_time"] == NOON - timedelta(hours=3)
    assert abs(stored["_ingest_time"] - datetime.now(UTC)) < timedelta(minutes=1)


def test_without_event_time_a_row_s_time_is_that_of_its_ingest(room: Room) -> None:
    room.ingest("clicks", [{"user_id": "u", "item_id": "i", "clicked": True}])
    [stored] = room.history("clicks").to_pylist()
    assert stored["_event_time"] == stored["_ingest_time"]


def test_rows_about_several_entities_stay_out_of_the_online_store(room: Room) -> None:
    room.ingest("clicks", [{"user_id": "u", "item_id": "i", "clicked": True}])
    assert list(room.redis.scan_iter("feature:*")) == []


def test_a_failed_feature_is_marked_and_counted_and_the_others_are_there(room: Room) -> None:
    done = room.ingest("users", [row("u", x=0.0), row("v")])
    assert (done.accepted, done.failed_features) == (2, {"inverse": 1})
    failed = '{"inverse":"ZeroDivisionError: float division by zero"}'
    assert room.online("user", "u") == {
        "x": "0.0",
        "double": "0.0",
        "_time.users": f"2013-01-31T12:00:00.000000Z {done.ingest_time}",
        "_failed.users": failed,
    }
    assert room.online("user", "v")["inverse"] == "0.5"
    version = room.catalogue.definitions.features["users"]["inverse"].version
    assert room.history("users")["_failed"].to_pylist() == [failed.replace("inverse", f"inverse@{version}"), None]


def test_a_feature_that_is_well_again_is_no_longer_marked(room: Room) -> None:
    room.ingest("users", [row(x=0.0)])
    room.ingest("users", [row(at=1, x=4.0)])
    assert room.online("user", "u").keys() == {"x", "double", "inverse", "_time.users"}


def test_an_ingest_is_told_with_its_counts(room: Room) -> None:
    raw = RawRows({"user_id": ["u", "v", ""], "at": [row()["at"]] * 3, "x": [0.0, 1.0, 2.0]}, range(1, 4))
    ingest(room.catalogue, "users", raw, "digest", skip_bad=True)
    [(_, event)] = bus.newest(room.redis, keys.EVENTS_FEATURES, 1)
    assert isinstance(event, RowsIngested)
    assert (event.table, event.accepted, event.rejected, event.failed_features) == ("users", 2, 1, 1)


def test_of_rows_with_a_bad_one_nothing_is_stored(room: Room) -> None:
    with pytest.raises(InvalidRows, match="1 of 2 rows of source 'users' were rejected and nothing was stored; first: "
                                          "row 2, column 'x', value 'None': is missing"):  # fmt: skip
        room.ingest("users", [row("u"), row("v", x=None)])
    assert room.history("users").num_rows == 0
    assert list(room.redis.scan_iter("feature:*")) == []


def test_of_nothing_but_bad_rows_nothing_is_stored(room: Room) -> None:
    done = room.ingest("users", [{"user_id": "", "at": "x", "x": 1.0}], skip_bad=True)
    assert (done.accepted, done.rejected, done.file) == (0, 1, "")
    assert history.names(room.catalogue.storage, "users") == []


def test_an_undeclared_source_is_named(room: Room) -> None:
    with pytest.raises(UnknownName, match="source 'user' is not known; did you mean 'users'"):
        room.ingest("user", [row()])


def test_while_redis_is_away_nothing_is_stored(room: Room) -> None:
    room.catalogue.redis = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)
    with pytest.raises(RedisAway):
        room.ingest("users", [row()])
    assert room.history("users").num_rows == 0


BATCHES = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=3), min_size=1, max_size=4
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_online_is_what_the_history_shows_of_now(batches: Sequence[Sequence[tuple[str, int]]], room: Room) -> None:
    room.catalogue.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)
    room.catalogue.storage = Storage(f"memory://{uuid4().hex}")
    number = 0.0
    for batch in batches:
        rows = []
        for key, at in batch:
            number += 1
            rows.append(row(key, at, x=number, note=None if number % 2 else str(number)))
        room.ingest("users", rows)
    stored = room.history("users").to_pylist()
    for key in {r["user_id"] for r in stored}:
        *_, newest = sorted((r for r in stored if r["user_id"] == key), key=lambda r: r["_event_time"])
        online = room.online("user", key)
        assert {n: online.get(n) for n in ("x", "double", "note")} == {
            "x": repr(newest["x"]),
            "double": repr(newest["double"]),
            "note": newest["note"],
        }
