from __future__ import annotations

import pytest

from modelmill.storage import Storage
from services.feature.store import history, journal
from services.feature.store.snapshots import Snapshot
from services.feature.upkeep.compaction import compact
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float})
"""


def ingest(room: Room, *numbers: int) -> None:
    for number in numbers:
        room.ingest("users", [{"user_id": "u", "at": f"2013-01-31T12:00:{number:02}Z", "x": float(number)}])


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    ingest(room, *range(6))
    return room


def snapshot(room: Room) -> Snapshot:
    return Snapshot(room.catalogue.storage, history.schema(room.catalogue.definitions, room.source("users")), "users")


def numbers(taken: Snapshot) -> list[float]:
    found: list[float] = taken.table(["x"])["x"].to_pylist()
    return found


def test_it_holds_the_rows_of_its_moment(room: Room) -> None:
    taken = snapshot(room)
    ingest(room, 6, 7)
    assert numbers(taken) == [0, 1, 2, 3, 4, 5]
    assert numbers(snapshot(room)) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_it_holds_the_same_rows_after_they_were_compacted_with_later_ones(room: Room, storage: Storage) -> None:
    taken = snapshot(room)
    ingest(room, 6, 7)
    compact(room.catalogue, "users", fewest=2)
    assert len(history.names(storage, "users")) == 1
    assert numbers(taken) == [0, 1, 2, 3, 4, 5]


def test_rows_that_came_between_its_own_are_not_its(room: Room) -> None:
    """A slow request got its ingest time before, and its file after the snapshot."""
    entry = journal.begin(room.redis, "users", "slow", {})
    ingest(room, 6)
    taken = snapshot(room)
    table = taken.table(["user_id", "x", "_event_time", "_ingest_time", "_failed"]).slice(0, 1)
    stamped = table.set_column(3, "_ingest_time", [[entry.ingested]]).cast(table.schema)
    history.write(room.catalogue.storage, history.name_of("users", entry.ingested, "slow"), stamped)
    journal.drop(room.redis, entry)
    compact(room.catalogue, "users", fewest=2)
    assert numbers(taken) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(snapshot(room)) == [0, 1, 2, 3, 4, 5, 0, 6]


def test_a_compaction_in_the_middle_of_a_reading_changes_nothing(room: Room) -> None:
    taken = snapshot(room)
    batches = taken.batches(["x"])
    first = [next(batches), next(batches)]
    compact(room.catalogue, "users", fewest=2)
    found = [row for batch in (*first, *batches) for row in batch["x"].to_pylist()]
    assert found == [0, 1, 2, 3, 4, 5]


def test_rows_are_cut_by_event_time(room: Room) -> None:
    [second] = {row["_event_time"] for row in room.history("users").to_pylist() if row["x"] == 2}
    assert snapshot(room).table(["x"], history.within(second, None))["x"].to_pylist() == [2, 3, 4, 5]


def test_of_a_source_without_rows_there_are_none(open_room: OpenRoom) -> None:
    assert numbers(snapshot(open_room(MILL))) == []


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_that_came_in_after_a_time_are_told_apart(compacted: bool, room: Room, storage: Storage) -> None:
    after = room.history("users")[history.INGEST_TIME].to_pylist()[3].strftime(history.STAMP)
    if compacted:
        compact(room.catalogue, "users", fewest=2)
    found = [x for batch in snapshot(room).batches(["x"], after=after) for x in batch["x"].to_pylist()]
    assert found == [4, 5]
