from __future__ import annotations

import os
from typing import Any

import pytest

from modelmill.state.connections import Redis
from modelmill.storage import Storage
from services.feature.store import history
from tests.feature.conftest import OpenRoom, Room

BEFORE = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float})
"""
DOUBLE = """
@feature(user, dtype=float)
def double(row):
    return row["x"] * 2
"""
TRIPLE = DOUBLE.replace("* 2", "* 3")
NAMED = """
@feature(user, dtype=str)
def named(row):
    return row["user_id"] + str(row["note"])
"""


def row(key: str, at: int, x: float = 1.0) -> dict[str, Any]:
    return {"user_id": key, "at": f"2013-01-31T0{at}:00:00Z", "x": x}


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    """Three files of history, whose newest row of `u` is in the second and of `v` in the last."""
    room = open_room(BEFORE)
    room.ingest("users", [row("u", 1, 1.0), row("v", 1, 10.0)])
    room.ingest("users", [row("u", 5, 2.0)])
    room.ingest("users", [row("u", 3, 3.0), row("v", 3, 30.0)])
    return room


def test_an_added_feature_is_there_for_all_rows(room: Room) -> None:
    applied = room.define(BEFORE + DOUBLE)
    assert applied.backfilled == 5
    assert room.history("users")["double"].to_pylist() == [2.0, 20.0, 4.0, 6.0, 60.0]


def test_an_added_feature_is_online_as_of_the_newest_row(room: Room) -> None:
    room.define(BEFORE + DOUBLE)
    assert (room.online("user", "u")["double"], room.online("user", "v")["double"]) == ("4.0", "60.0")


def test_a_changed_feature_is_computed_anew(room: Room) -> None:
    room.define(BEFORE + DOUBLE)
    room.define(BEFORE + TRIPLE)
    assert room.history("users")["double"].to_pylist() == [3.0, 30.0, 6.0, 9.0, 90.0]
    assert (room.online("user", "u")["double"], room.online("user", "v")["double"]) == ("6.0", "90.0")


def test_of_equal_times_the_later_ingest_is_online(room: Room) -> None:
    room.ingest("users", [row("u", 5, 7.0)])
    room.define(BEFORE + DOUBLE)
    assert (room.online("user", "u")["x"], room.online("user", "u")["double"]) == ("7.0", "14.0")


def test_the_rows_stay_as_they_were(room: Room) -> None:
    kept = ["user_id", "x", "_event_time", "_ingest_time"]
    before = room.history("users").select(kept)
    room.define(BEFORE + DOUBLE)
    assert room.history("users").select(kept).equals(before)


def test_what_is_up_to_date_is_left_alone(room: Room, storage: Storage) -> None:
    room.define(BEFORE + DOUBLE)
    paths = [storage.path(name) for name in history.names(storage, "users")]
    before = [os.stat(path).st_ino for path in paths]
    assert room.define(BEFORE + DOUBLE + "# a remark\n").backfilled == 0
    assert [os.stat(path).st_ino for path in paths] == before


def test_a_removed_feature_costs_nothing(room: Room) -> None:
    room.define(BEFORE + DOUBLE)
    assert room.define(BEFORE).backfilled == 0


def test_a_feature_that_fails_on_old_rows_is_marked_there(room: Room) -> None:
    applied = room.define(BEFORE + DOUBLE.replace("dtype=float", "dtype=float, max_failed=0.2").replace(
        'row["x"] * 2', '1 / (row["x"] - 2)'
    ))  # fmt: skip
    assert applied.failed == {"double": 1}
    assert room.history("users")["double"].to_pylist() == [-1.0, 0.125, None, 1.0, 1 / 28]
    online = room.online("user", "u")
    assert "double" not in online
    assert online["_failed.users"] == '{"double":"ZeroDivisionError: float division by zero"}'


def test_a_function_sees_none_for_a_column_that_came_later(room: Room) -> None:
    later = BEFORE.replace('"x": float', '"x": float, "note": str | None')
    room.define(later + NAMED)
    assert room.history("users")["named"].to_pylist() == ["uNone", "vNone", "uNone", "uNone", "vNone"]


def test_what_was_interrupted_goes_on_where_it_stopped(
    room: Room, fake_redis: Redis, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = history.write, 0

    def breaks_at_the_second(*arguments: Any, **more: Any) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError("disk full")
        write(*arguments, **more)

    monkeypatch.setattr(history, "write", breaks_at_the_second)
    with pytest.raises(OSError, match="disk full"):
        room.define(BEFORE + DOUBLE)
    monkeypatch.undo()
    assert room.catalogue.apply().backfilled == 3
    assert room.history("users")["double"].to_pylist() == [2.0, 20.0, 4.0, 6.0, 60.0]
    assert (room.online("user", "u")["double"], room.online("user", "v")["double"]) == ("4.0", "60.0")
