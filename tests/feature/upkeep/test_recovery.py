from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from modelmill.errors import Unavailable
from modelmill.state import bus, keys
from services.feature.store import history, journal, online
from services.feature.upkeep.rebuild import recover
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float})

@feature(user, dtype=float)
def double(row):
    return row["x"] * 2
"""
ROW = {"user_id": "u", "at": "2013-01-31T12:00:00Z", "x": 1.0}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def killed_at(module: Any, function: str, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest a row and be killed where `function` is called."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, function, die)
        with pytest.raises(Killed):
            room.ingest("users", [ROW], digest="a")


POINTS = {
    "before the history": (history, "write"),
    "before the online store": (online, "write"),
    "before the end": (journal, "finish"),
}


@pytest.mark.parametrize(("module", "function"), POINTS.values(), ids=POINTS)
def test_a_request_whose_service_was_killed_takes_effect_once_when_it_comes_again(
    module: Any, function: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(module, function, room, monkeypatch)
    done = room.ingest("users", [ROW], digest="a")
    assert (done.accepted, done.duplicate) == (1, 0)
    assert room.history("users")["double"].to_pylist() == [2.0]
    assert room.online("user", "u")["double"] == "2.0"
    assert room.ingest("users", [ROW], digest="a").duplicate == 1
    assert len(bus.newest(room.redis, keys.EVENTS_FEATURES, 10)) == 2  # definitions applied, rows ingested


@pytest.mark.parametrize(("module", "function"), list(POINTS.values())[1:], ids=list(POINTS)[1:])
def test_rows_that_are_in_the_history_come_online_though_nobody_sends_them_again(
    module: Any, function: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(module, function, room, monkeypatch)
    assert recover(room.catalogue, older_than=-1) == 1
    assert room.online("user", "u")["double"] == "2.0"
    assert recover(room.catalogue, older_than=-1) == 0
    assert room.ingest("users", [ROW], digest="a").duplicate == 1


def test_of_a_request_without_history_nothing_stays(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(history, "write", room, monkeypatch)
    recover(room.catalogue, older_than=-1)
    assert room.online("user", "u") == {}
    assert room.ingest("users", [ROW], digest="a").accepted == 1


def test_a_request_that_goes_on_is_left_alone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(online, "write", room, monkeypatch)
    assert recover(room.catalogue) == 0


def test_a_process_that_was_stopped_until_others_gave_it_up_stores_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = history.write

    def wakes_up_late(*arguments: Any, **more: Any) -> None:
        recover(room.catalogue, older_than=-1)
        write(*arguments, **more)

    monkeypatch.setattr(history, "write", wakes_up_late)
    with pytest.raises(Unavailable, match="nothing of it is stored; send it again"):
        room.ingest("users", [ROW])
    assert room.history("users").num_rows == 0


@pytest.mark.parametrize("stopped", ["before it writes the history", "after"])
def test_a_request_that_another_process_ended_meanwhile_loses_nothing(
    stopped: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender gave up waiting and sent it again, to a process that was faster."""
    write = history.write

    def overtaken(*arguments: Any, **more: Any) -> None:
        monkeypatch.undo()
        if stopped == "after":
            write(*arguments, **more)
        assert room.ingest("users", [ROW], digest="a").accepted == 1
        if stopped != "after":
            write(*arguments, **more)

    monkeypatch.setattr(history, "write", overtaken)
    assert room.ingest("users", [ROW], digest="a").duplicate == 1
    assert room.history("users")["x"].to_pylist() == [1.0]
    assert room.online("user", "u")["double"] == "2.0"


def test_one_that_wakes_up_after_its_rows_were_erased_does_not_bring_them_back(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = history.write

    def overtaken(storage: Any, name: str, *arguments: Any, **more: Any) -> None:
        monkeypatch.undo()
        room.ingest("users", [ROW], digest="a")
        storage.remove(name)
        write(storage, name, *arguments, **more)

    monkeypatch.setattr(history, "write", overtaken)
    room.ingest("users", [ROW], digest="a")
    assert room.history("users").num_rows == 0


def test_a_row_in_a_compacted_file_is_found(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    done = room.ingest("users", [ROW | {"user_id": "v"}])
    killed_at(online, "write", room, monkeypatch)
    storage = room.catalogue.storage
    first, last = (history.FileSpan.of(name).first for name in history.names(storage, "users"))
    merged = f"{done.file.rpartition('/')[0]}/{first}--{last}.parquet"
    whole = history.reading(storage, "users", lambda names: [history.read_whole(storage, name) for name in names])
    history.write(storage, merged, pa.concat_tables(whole))
    recover(room.catalogue, older_than=-1)
    assert room.online("user", "u")["x"] == "1.0"
