from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest

from modelmill.errors import Conflict, DefinitionsError
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import DefinitionsApplied
from services.feature.definitions import catalogue as module
from services.feature.store import history, journal
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Model, Source, every, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"x": float, "note": str | None, "target": int})

@feature(user, dtype=float)
def double(row):
    return row["x"] * 2

Model("m", entities=[user], features=["x", "double"], label="target", estimator=None, train=every(seconds=60))
"""
TRIPLE = MILL.replace("* 2", "* 3")


def row(**values: Any) -> dict[str, Any]:
    return {"user_id": "u", "x": 1.0, "target": 1} | values


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def applied(redis: Redis) -> list[DefinitionsApplied]:
    found = bus.newest(redis, keys.EVENTS_FEATURES, 100)
    return [event for _, event in found if isinstance(event, DefinitionsApplied)]


# --- registered


def test_what_is_registered_is_readable(room: Room) -> None:
    redis = room.redis
    version = room.catalogue.definitions.features["users"]["double"].version
    assert redis.hgetall("entity:user") == {"key": "user_id"}
    assert redis.hgetall("source:users") == {
        "entities": "user",
        "event_time": "",
        "column.x": "float",
        "column.note": "str?",
        "column.target": "int",
    }
    assert redis.hgetall("features:user") == {
        "x": "float users",
        "note": "str? users",
        "target": "int users",
        "double": f"float users {version}",
    }
    assert redis.hgetall("model:m")["train"] == "every 60 s"
    assert (redis.smembers("entities"), redis.smembers("sources"), redis.smembers("models")) == (
        {"user"},
        {"users"},
        {"m"},
    )


def test_the_definitions_in_force_are_registered_by_their_fingerprint(room: Room) -> None:
    found = room.redis.hgetall("definitions")
    fingerprint = room.catalogue.definitions.fingerprint
    assert (found["fingerprint"], found["applying"], found["path"]) == (
        fingerprint,
        fingerprint,
        str(room.catalogue.path),
    )


def test_what_is_no_longer_declared_is_no_longer_registered(room: Room) -> None:
    room.define(MILL.split("@feature")[0])
    assert room.redis.hgetall("model:m") == {}
    assert "double" not in room.redis.hgetall("features:user")


def test_every_change_is_told_once(room: Room) -> None:
    room.catalogue.apply()
    [event] = applied(room.redis)
    assert event.fingerprint == room.catalogue.definitions.fingerprint
    assert "source:users column.x: added (float)" in event.changes


def test_what_a_source_demands_and_is_is_readable(open_room: OpenRoom) -> None:
    room = open_room("""
        from modelmill import Entity, Expect, Source, column
        user = Entity("user", key="user_id")
        users = Source("users", entity=user, event_time="at", max_future="2h", expect=Expect(min_rows=1, unique=["at"]),
                       columns={"x": column(float | None, min=0, description="how far")},
                       description="people", owner="ann", tags=["core", "gdpr"])
    """)
    assert room.redis.hgetall("source:users") == {
        "entities": "user",
        "event_time": "at",
        "column.x": "float?",
        "constraints.x": "at least 0",
        "description.x": "how far",
        "max_future": "2h",
        "expect": "at least 1 rows; unique by at",
        "description": "people",
        "owner": "ann",
        "tags": "core gdpr",
    }


# --- plan


def test_constraints_may_change_while_rows_are_stored(room: Room) -> None:
    room.ingest("users", [row(x=-1.0)])
    room.define(MILL.replace('"x": float', '"x": column(float, min=0)').replace("Entity,", "Entity, column,"))
    assert "source:users constraints.x: added (at least 0)" in applied(room.redis)[-1].changes


def test_a_plan_says_what_would_change_and_changes_nothing(room: Room) -> None:
    before = room.redis.hgetall("features:user")
    room.catalogue.path.write_text(TRIPLE.replace("seconds=60", "seconds=30"))
    planned = room.catalogue.plan()
    assert [change.partition(":")[2].split(" ")[1] for change in planned.changes] == ["double:", "train:"]
    assert "model:m train: every 60 s -> every 30 s" in planned.changes
    assert planned.refusals == []
    assert room.redis.hgetall("features:user") == before
    assert applied(room.redis)[-1].fingerprint == room.catalogue.definitions.fingerprint


def test_the_max_age_of_a_source_may_change(room: Room) -> None:
    aged = MILL.replace('Source("users", ', 'Source("users", max_age="48h", ')
    assert room.define(aged).changes == ["source:users max_age: added (2d)"]
    assert room.redis.hget("source:users", "max_age") == "2d"
    assert room.define(MILL).changes == ["source:users max_age: removed"]


def test_a_file_without_changes_plans_none(room: Room) -> None:
    room.catalogue.path.write_text(MILL + "# a remark\n")
    assert room.catalogue.plan().changes == []


def test_a_mistake_in_the_file_leaves_the_definitions_in_force(room: Room) -> None:
    former = room.catalogue.definitions
    with pytest.raises(DefinitionsError, match=r"mill.py:\d+: TypeError"):
        room.define(MILL + "Model('broken')\n")
    assert room.catalogue.definitions is former


def test_another_file_than_the_one_that_was_checked_is_a_conflict(room: Room) -> None:
    with pytest.raises(Conflict, match=r"mill.py, which holds something else than the file that was checked"):
        room.catalogue.apply("0" * 64)


# --- evolution

REFUSED = {
    "another type": ('"x": float', '"x": int', "column.x: float -> int: stored values have the former type"),
    "a column that may not be missing": (
        '"x": float',
        '"x": float, "y": float',
        "column.y: added (float): stored rows have no value for it; declare it as float | None",
    ),
    "another join key": ('key="user_id"', 'key="id"', "entity:user key: user_id -> id: rows are stored under it"),
    "an event time": (
        'Source("users", ',
        'Source("users", event_time="at", ',
        "source:users event_time: none -> at: rows are stored under it",
    ),
    "another entity": (
        'Source("users", entity=user',
        'Source("users", entities=[user, Entity("item", key="item_id")]',
        "source:users entities: user -> user item: rows are stored under it",
    ),
}


def evolved(old: str, new: str) -> str:
    """The definitions without feature and model, whose file could not be loaded with every change."""
    return MILL.split("@feature")[0].replace(old, new)


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_change_that_stored_rows_do_not_allow_is_refused_with_the_way_out(
    old: str, new: str, reason: str, room: Room
) -> None:
    room.ingest("users", [row()])
    registered = room.redis.hgetall("source:users")
    with pytest.raises(Conflict) as caught:
        room.define(evolved(old, new))
    assert reason in str(caught.value)
    assert room.redis.hgetall("source:users") == registered
    assert room.source("users").columns["x"].dtype == "float"


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED.values(), ids=REFUSED)
def test_without_rows_anything_may_change(old: str, new: str, reason: str, room: Room) -> None:
    change = reason.split(": rows")[0].split(": stored")[0]
    assert any(change in told for told in room.define(evolved(old, new)).changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"x": float', '"x": float, "y": float | None'),
        ('"note": str | None, ', ""),
        ('"note": str | None', '"note": str'),
        ('"x": float', '"x": float | None'),
    ],
    ids=["a nullable column more", "a column less", "no longer nullable", "nullable from now on"],
)
def test_a_change_that_stored_rows_allow_is_applied(old: str, new: str, room: Room) -> None:
    room.ingest("users", [row(note="a")])
    room.define(evolved(old, new))
    assert room.history("users").num_rows == 1


def test_a_source_may_leave_and_come_back_with_its_rows(room: Room) -> None:
    room.ingest("users", [row()])
    room.define("from modelmill import Entity\nuser = Entity('user', key='user_id')\n")
    room.define(MILL)
    assert room.history("users")["double"].to_pylist() == [2.0]


def test_history_is_taken_up_again_after_redis_was_emptied(room: Room) -> None:
    room.ingest("users", [row()])
    room.redis.flushall()
    room.catalogue.apply()
    assert room.history("users").num_rows == 1
    assert room.redis.hgetall("source:users")["column.x"] == "float"


# --- several processes


@pytest.fixture
def following() -> Iterator[Callable[[Room], None]]:
    """Lets a process follow the definitions, as the real one does in a thread; all end with the test."""
    stop = Flag()
    threads: list[Thread] = []

    def follow(room: Room) -> None:
        position = bus.last_position(room.redis, keys.EVENTS_FEATURES)
        thread = Thread(target=room.catalogue.follow, args=(stop, position), daemon=True)
        threads.append(thread)
        thread.start()

    yield follow
    stop.set()
    for thread in threads:
        thread.join(timeout=5)


@pytest.mark.redis
def test_other_processes_follow_what_one_applies(
    open_room: OpenRoom, real_redis: RedisServer, following: Callable[[Room], None]
) -> None:
    one, two = open_room(MILL, redis=real_redis.client()), open_room(redis=real_redis.client())
    following(two)
    one.define(TRIPLE)
    fingerprint = one.catalogue.definitions.fingerprint
    eventually(lambda: two.catalogue.definitions.fingerprint == fingerprint, within=5, saying="the other follows")
    two.ingest("users", [row()])
    assert two.online("user", "u")["double"] == "3.0"


@pytest.mark.redis
def test_other_processes_follow_also_after_redis_was_away(
    open_room: OpenRoom, real_redis: RedisServer, following: Callable[[Room], None]
) -> None:
    one, two = open_room(MILL, redis=real_redis.client()), open_room(redis=real_redis.client())
    following(two)
    real_redis.stop()
    real_redis.start()
    one.define(TRIPLE)
    fingerprint = one.catalogue.definitions.fingerprint
    eventually(lambda: two.catalogue.definitions.fingerprint == fingerprint, within=10, saying="the other follows")


def test_whoever_missed_the_event_catches_up_from_what_is_registered(open_room: OpenRoom) -> None:
    one, two = open_room(MILL), open_room()
    one.define(TRIPLE)
    one.redis.delete(keys.EVENTS_FEATURES)
    two.catalogue.catch_up()
    assert two.catalogue.definitions.fingerprint == one.catalogue.definitions.fingerprint


def test_a_row_that_a_process_with_former_definitions_ingests_gets_the_new_features(open_room: OpenRoom) -> None:
    one, two = open_room(MILL), open_room()
    one.define(TRIPLE)
    two.ingest("users", [row()])
    assert two.online("user", "u")["double"] == "3.0"
    assert one.history("users")["double"].to_pylist() == [3.0]


def test_a_row_that_comes_in_while_features_are_computed_anew_gets_the_new_ones(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's row is in history when its file is computed anew, and online only afterwards."""
    one, two = open_room(MILL), open_room()
    write = history.write

    def apply_in_between(*arguments: Any, **more: Any) -> None:
        write(*arguments, **more)
        monkeypatch.undo()
        one.define(TRIPLE)

    monkeypatch.setattr(history, "write", apply_in_between)
    two.ingest("users", [row()])
    assert one.history("users")["double"].to_pylist() == [3.0]
    assert two.online("user", "u")["double"] == "3.0"


@pytest.mark.parametrize("text", [MILL + "x = 1 / 0\n", MILL + "# edited, but not applied\n"], ids=["broken", "edited"])
def test_what_was_applied_holds_whatever_the_file_is_by_now(text: str, open_room: OpenRoom) -> None:
    one, two = open_room(MILL), open_room()
    one.define(TRIPLE)
    one.catalogue.path.write_text(text)
    two.catalogue.catch_up()
    assert two.catalogue.definitions.code.text == TRIPLE
    assert open_room().catalogue.definitions.code.text == TRIPLE


def test_while_another_applies_one_waits(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPLY_WAIT_SECONDS", 0.2)
    room.redis.set(keys.DEFINITIONS_LOCK, "another")
    with pytest.raises(Conflict, match="others are applying definitions at this moment; try again later"):
        room.define(TRIPLE)


def test_one_that_was_killed_while_it_applied_is_waited_for_as_long_as_its_lease(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.redis.set(keys.DEFINITIONS_LOCK, "killed", px=300)
    began = time.monotonic()
    room.define(TRIPLE)
    assert 0.2 < time.monotonic() - began < 5


def test_the_lock_is_held_however_long_it_takes(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(module, "APPLY_WAIT_SECONDS", 0.1)
    one, two = open_room(MILL), open_room()

    def slow(*_: object) -> int:
        time.sleep(1)
        with pytest.raises(Conflict, match="others are applying"):
            two.catalogue.apply()
        return 0

    monkeypatch.setattr(module, "backfill", slow)
    one.define(TRIPLE)
    assert one.redis.get(keys.DEFINITIONS_LOCK) is None
