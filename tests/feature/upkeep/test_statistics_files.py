from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest

from modelmill.errors import Unavailable
from modelmill.state import bus, keys
from services.feature.proof.forget import forget
from services.feature.store import history
from services.feature.upkeep import statistics as statistics_module
from services.feature.upkeep.statistics import ATTEMPTS, FileStatistics, StatisticsFiles, follow
from tests.eventually import eventually
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"x": float | None, "name": str | None})

@feature(user, dtype=float | None)
def double(row):
    return row["x"] and row["x"] * 2
"""
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


@pytest.fixture
def files(room: Room) -> StatisticsFiles:
    return StatisticsFiles(room.catalogue.storage)


def row(x: float | None, days: int = 0, **more: Any) -> dict[str, Any]:
    return {"user_id": "u", "at": (NOON + timedelta(days=days)).isoformat(), "x": x, **more}


def count(files: StatisticsFiles, room: Room) -> int:
    """The values of x that the statistics know."""
    return sum(columns["x"].count for columns in files.of(room.source("users")).days.values())


def stored(room: Room) -> list[str]:
    return room.catalogue.storage.names("statistics/users", ".json")


def remove(room: Room, name: str) -> None:
    room.catalogue.storage.files.rm(room.catalogue.storage.path(name))


def test_they_are_of_all_rows_that_are_stored(files: StatisticsFiles, room: Room) -> None:
    assert files.of(room.source("users")) == FileStatistics("", {})
    room.ingest("users", [row(1.0), row(None)])
    assert count(files, room) == 1
    room.ingest("users", [row(2.0), row(3.0, days=1)])
    assert count(files, room) == 3
    columns = next(iter(files.of(room.source("users")).days.values()))
    assert list(columns) == ["x", "name", room.catalogue.definitions.features["users"]["double"].field]


def test_each_history_file_has_its_own_beside_it(files: StatisticsFiles, room: Room) -> None:
    first, second = (room.ingest("users", [row(float(n))]).file for n in range(2))
    files.of(room.source("users"))
    stems = [name.rpartition("/")[2].removesuffix(".parquet") for name in (first, second)]
    assert stored(room) == [f"statistics/users/{stem}.json" for stem in stems]


def test_what_is_stored_is_read_and_not_made_again(
    files: StatisticsFiles, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.ingest("users", [row(1.0)])
    files.of(room.source("users"))
    monkeypatch.setattr(statistics_module.FileStatistics, "of", None)
    assert count(StatisticsFiles(room.catalogue.storage), room) == 1


def test_a_file_whose_features_were_computed_anew_is_described_anew(files: StatisticsFiles, room: Room) -> None:
    def mean() -> float:
        [columns] = files.of(room.source("users")).days.values()
        return columns[room.catalogue.definitions.features["users"]["double"].field].answer(detail=False)["mean"]

    room.ingest("users", [row(1.0)])
    assert mean() == 2.0
    room.define(MILL.replace("* 2", "* 3"))
    assert mean() == 3.0
    assert len(stored(room)) == 1


def test_what_is_in_memory_is_not_read_again(
    files: StatisticsFiles, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.ingest("users", [row(1.0)])
    files.of(room.source("users"))
    room.ingest("users", [row(2.0)])
    read: list[str] = []
    original = StatisticsFiles._of_file
    monkeypatch.setattr(StatisticsFiles, "_of_file", lambda *args: read.append(args[2]) or original(*args))  # type: ignore[func-returns-value]
    assert count(files, room) == 2
    assert read == history.names(room.catalogue.storage, "users")[1:]


def test_a_file_that_is_gone_no_longer_counts(files: StatisticsFiles, room: Room) -> None:
    name = room.ingest("users", [row(1.0)]).file
    room.ingest("users", [row(2.0)])
    assert count(files, room) == 2
    remove(room, name)
    assert (count(files, room), len(stored(room))) == (1, 2)


def test_statistics_of_files_that_are_gone_are_cleaned_and_others_stay(files: StatisticsFiles, room: Room) -> None:
    name = room.ingest("users", [row(1.0)]).file
    room.ingest("users", [row(2.0)])
    files.of(room.source("users"))
    remove(room, name)
    assert (files.clean("users"), files.clean("users")) == (1, 0)
    assert (count(files, room), len(stored(room))) == (1, 1)


def test_statistics_of_files_that_were_replaced_are_dropped(files: StatisticsFiles, room: Room) -> None:
    done = [room.ingest("users", [row(x)]) for x in (1.0, 2.0)]
    files.of(room.source("users"))
    history.write(files.storage, done[0].file, history.read_whole(files.storage, done[0].file).slice(0, 0))
    assert files.drop_stale("users") == 1
    assert stored(room) == [statistics_module.stored_name("users", done[1].file)]
    assert files.drop_stale("users") == 0


def test_a_file_that_goes_while_it_is_read_is_looked_for_where_its_rows_are_now(
    files: StatisticsFiles, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.ingest("users", [row(1.0)])
    names = history.names(room.catalogue.storage, "users")
    answers = iter([["history/users/day=2013-01-31/compacted-away.parquet", *names], names])
    monkeypatch.setattr(statistics_module.history, "names", lambda *_: next(answers))
    assert count(files, room) == 1


def test_files_that_always_go_are_told(files: StatisticsFiles, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        statistics_module.history, "names", lambda *_: asked.append("") or ["history/users/gone.parquet"]
    )
    with pytest.raises(Unavailable, match="the history files of source 'users' change while they are read; try again"):
        files.of(room.source("users"))
    assert len(asked) == ATTEMPTS


def test_a_large_file_is_read_in_parts(room: Room, files: StatisticsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_module, "ROWS_PER_BATCH", 3)
    room.ingest("users", [row(float(n), days=n % 2) for n in range(10)])
    found = files.of(room.source("users"))
    assert [columns["x"].count for columns in found.days.values()] == [5, 5]
    assert [columns["x"].answer(detail=False)["mean"] for columns in found.days.values()] == [4.0, 5.0]


def test_another_process_reads_what_the_first_has_made(files: StatisticsFiles, room: Room) -> None:
    room.ingest("users", [row(1.0)])
    other = StatisticsFiles(room.catalogue.storage)
    assert files.of(room.source("users")) == other.of(room.source("users"))
    assert len(stored(room)) == 1


# --- in the background


@pytest.fixture
def background(files: StatisticsFiles, room: Room) -> Iterator[None]:
    """What the service runs beside its requests."""
    stop = Flag()
    position = bus.last_position(room.redis, keys.EVENTS_FEATURES)
    room.ingest("users", [row(0.0)])
    thread = Thread(target=follow, args=(files, room.catalogue, stop, position, 0.01))
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("background")
def test_what_is_ingested_is_described_without_being_asked_for(room: Room) -> None:
    eventually(lambda: len(stored(room)) == 1, within=10, saying="what was there before is described")
    room.ingest("users", [row(1.0)])
    eventually(lambda: len(stored(room)) == 2, within=10, saying="the new rows are described")


@pytest.mark.usefixtures("background")
def test_what_was_rewritten_to_forget_an_entity_is_described_anew(room: Room) -> None:
    done = room.ingest("users", [row(1.0, name="secret"), row(2.0) | {"user_id": "v"}])
    name = statistics_module.stored_name("users", done.file)
    eventually(lambda: b"secret" in room.catalogue.storage.read(name), within=5, saying="it is described")
    forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", "u")
    eventually(lambda: b"secret" not in room.catalogue.storage.read(name), within=5, saying="it is described anew")


@pytest.mark.usefixtures("background")
def test_what_is_gone_is_cleaned_after_an_ingest(room: Room) -> None:
    eventually(lambda: len(stored(room)) == 1, within=10, saying="what was there before is described")
    [gone] = stored(room)
    remove(room, history.names(room.catalogue.storage, "users")[0])
    room.ingest("users", [row(1.0)])
    eventually(
        lambda: len(stored(room)) == 1 and gone not in stored(room), within=10, saying="only the new one is there"
    )


@pytest.mark.usefixtures("background")
def test_a_file_that_cannot_be_read_does_not_end_it(room: Room) -> None:
    eventually(lambda: len(stored(room)) == 1, within=10, saying="what was there before is described")
    broken = "history/users/day=2013-01-31/broken.parquet"
    room.catalogue.storage.write(broken, b"not Parquet")
    room.ingest("users", [row(1.0)])
    remove(room, broken)
    room.ingest("users", [row(2.0)])
    eventually(lambda: len(stored(room)) == 3, within=10, saying="the others are described")


# --- over HTTP


def statistics(room: Room, **query: str) -> Any:
    answer = room.http.get("/sources/users/statistics", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def test_statistics_are_shown_by_day_and_merged(room: Room) -> None:
    room.ingest("users", [row(1.0, name="a"), row(3.0, name="a"), row(8.0, days=1)])
    found = statistics(room)
    assert (found["source"], found["relative_error"], list(found["columns"])) == (
        "users",
        0.01,
        ["x", "name", "double"],
    )
    x = found["columns"]["x"]
    assert {day: one["mean"] for day, one in x["days"].items()} == {"2013-01-31": 2.0, "2013-02-01": 8.0}
    assert (x["merged"]["count"], x["merged"]["mean"], x["merged"]["max"]) == (3, 4.0, 8.0)
    assert sum(x["merged"]["histogram"]["counts"]) == 3
    assert found["columns"]["name"]["merged"]["top"] == [{"value": "a", "count": 2}]
    assert found["columns"]["double"]["merged"]["mean"] == 8.0


def test_days_and_a_column_are_chosen(room: Room) -> None:
    room.ingest("users", [row(float(n), days=n) for n in range(4)])
    found = statistics(room, start="2013-02-01", end="2013-02-03", column="x")["columns"]
    assert (list(found), list(found["x"]["days"])) == (["x"], ["2013-02-01", "2013-02-02"])


def test_of_no_rows_there_is_nothing_to_show(room: Room) -> None:
    nothing = {"merged": None, "days": {}}
    assert statistics(room)["columns"] == {"x": nothing, "name": nothing, "double": nothing}
    assert statistics(room, column="x")["columns"] == {"x": nothing}


@pytest.mark.parametrize(
    "path, status, detail",
    [
        ("user/statistics", 404, "source 'user' is not known; did you mean 'users'?"),
        ("users/statistics?column=xx", 404, "column 'xx' is not known; did you mean 'x'?"),
        ("users/statistics?start=soon", 422, "start is 'soon'; expected a day such as 2013-02-01"),
        ("users/statistics?start=20130201", 422, "start is '20130201'; expected a day such as 2013-02-01"),
        ("users/statistics?end=2013-02-30", 422, "end is '2013-02-30'; expected a day such as 2013-02-01"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(path: str, status: int, detail: str, room: Room) -> None:
    answer = room.http.get(f"/sources/{path}")
    assert (answer.status_code, answer.get_json()["detail"]) == (status, detail)
