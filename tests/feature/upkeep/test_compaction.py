from __future__ import annotations

import threading
from typing import Any

import pandas as pd
import pytest

from modelmill.errors import Conflict
from modelmill.state import keys
from modelmill.storage import Storage
from services.feature.store import history, journal
from services.feature.store.history import current
from services.feature.upkeep import compaction
from services.feature.upkeep.compaction import compact
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float})
"""
DOUBLE = """
@feature(user, dtype=float)
def double(row):
    return row["x"] * 2
"""


def ingest(room: Room, *numbers: int) -> None:
    for number in numbers:
        room.ingest("users", [{"user_id": "u", "at": "2013-01-31T12:00:00Z", "x": float(number)}])


def numbers(room: Room) -> list[float]:
    found: list[float] = room.history("users")["x"].to_pylist()
    return found


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    ingest(room, *range(5))
    return room


def test_files_become_one_with_the_same_rows_in_the_same_order(room: Room, storage: Storage) -> None:
    before = room.history("users")
    assert compact(room.catalogue, "users", fewest=2) == 5
    assert len(storage.names("history/users", ".parquet")) == 1
    assert room.history("users").equals(before)


def test_later_rows_follow_and_are_taken_up_too(room: Room, storage: Storage) -> None:
    compact(room.catalogue, "users", fewest=2)
    ingest(room, 5, 6)
    assert numbers(room) == [0, 1, 2, 3, 4, 5, 6]
    compact(room.catalogue, "users", fewest=2)
    assert numbers(room) == [0, 1, 2, 3, 4, 5, 6]
    assert len(history.names(storage, "users")) == 1


def test_a_compacted_history_is_readable_as_it_lies(room: Room, storage: Storage) -> None:
    compact(room.catalogue, "users", fewest=2)
    assert pd.read_parquet(storage.path("history/users"))["x"].tolist() == [0, 1, 2, 3, 4]


def test_few_files_are_left_as_they_are(room: Room, storage: Storage) -> None:
    assert compact(room.catalogue, "users") == 0
    assert len(history.names(storage, "users")) == 5


def test_files_with_other_columns_are_not_mixed(room: Room, storage: Storage) -> None:
    room.define(MILL + DOUBLE)
    compact(room.catalogue, "users", fewest=2)
    room.define(MILL)
    ingest(room, 5, 6)
    compact(room.catalogue, "users", fewest=2)
    room.define(MILL + DOUBLE)
    assert room.history("users")["double"].to_pylist() == [0, 2, 4, 6, 8, 10, 12]


def test_columns_that_nothing_needs_any_more_are_left_out(room: Room, storage: Storage) -> None:
    room.define(MILL + DOUBLE)
    room.define(MILL)
    compact(room.catalogue, "users", fewest=2)
    [name] = history.names(storage, "users")
    assert [column for column in history.stored_columns(storage, name) if "@" in column] == []


def test_what_may_still_get_rows_before_it_waits(room: Room, storage: Storage) -> None:
    journal.begin(room.redis, "users", "slow", {})
    ingest(room, 5, 6)
    compact(room.catalogue, "users", fewest=2)
    assert len(history.names(storage, "users")) == 3


def test_large_files_are_left_as_they_are(room: Room, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LARGEST", 100)
    assert compact(room.catalogue, "users", fewest=2) == 0


def test_one_compaction_that_was_killed_before_it_removed_the_files_doubles_nothing(
    room: Room, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "remove", die)
        with pytest.raises(Killed):
            compact(room.catalogue, "users", fewest=2)
    assert numbers(room) == [0, 1, 2, 3, 4]
    compact(room.catalogue, "users", fewest=2)
    assert len(storage.names("history/users", ".parquet")) == 1
    assert numbers(room) == [0, 1, 2, 3, 4]


def test_one_that_lost_its_lock_changes_nothing(room: Room, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    read_whole = history.read_whole

    def stopped_for_long(*arguments: Any) -> Any:
        room.redis.set(keys.history_lock("users"), "another")
        return read_whole(*arguments)

    monkeypatch.setattr(history, "read_whole", stopped_for_long)
    with pytest.raises(Conflict, match="others are rewriting history/users"):
        compact(room.catalogue, "users", fewest=2)
    assert len(history.names(storage, "users")) == 5


@pytest.mark.slow
def test_readers_and_writers_go_on_meanwhile(room: Room) -> None:
    stop = threading.Event()
    seen: list[list[float]] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(numbers(room))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(5, 60, 5):
        ingest(room, *range(number, number + 5))
        compact(room.catalogue, "users", fewest=2)
    stop.set()
    reader.join(timeout=20)
    assert len(seen) > 10
    for rows in seen:
        assert rows == list(range(len(rows)))
    assert numbers(room) == list(range(60))


def name(*stamps: str) -> str:
    return f"history/users/day=1/{'--'.join(stamps)}{'-ab' if len(stamps) == 1 else ''}.parquet"


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([name("1"), name("2")], [name("1"), name("2")]),
        ([name("1"), name("2"), name("1", "2")], [name("1", "2")]),
        ([name("1"), name("1", "2"), name("3")], [name("1", "2"), name("3")]),
        ([name("1", "2"), name("1", "4"), name("3"), name("5")], [name("1", "4"), name("5")]),
        ([name("1", "2"), name("3", "4"), name("1", "4")], [name("1", "4")]),
    ],
)
def test_a_compacted_file_takes_the_place_of_those_in_its_span(found: list[str], kept: list[str]) -> None:
    assert current(found) == kept
    assert current(reversed(found)) == kept
