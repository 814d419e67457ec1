"""Frames that are made again: as of a position of the history, and by the definitions of that time."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fakeredis
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmill.settings import Settings
from modelmill.storage import Storage
from services.feature.app import feature_app
from services.feature.definitions.catalogue import Catalogue
from services.feature.intake.ingest import Ingested
from services.feature.proof.forget import forget
from services.feature.store import journal
from services.feature.upkeep.compaction import compact
from services.feature.upkeep.statistics import StatisticsFiles
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Aggregate, Entity, Model, Source, feature

user = Entity("user", key="user_id")
users = Source("users", entity=user, event_time="at", columns={"one": float})
clicks = Source("clicks", entities=[user], event_time="at", columns={"cost": float, "good": bool})
Aggregate(clicks, "cost", "sum", window="2h", hop="1h", by=user, name="spent")

@feature(users, dtype=float)
def two(row):
    return row["one"] * 2

Model("m", entities=[user], features=["one", "two", "spent"], label="good", estimator=None)
"""
OTHER = MILL.replace('row["one"] * 2', 'row["one"] * 3')
NOON, LATER = "2026-01-01T12:00:00Z", "2026-01-01T15:00:00Z"


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    room = open_room(MILL)
    room.ingest("users", [{"user_id": "u", "at": NOON, "one": 1.0}, {"user_id": "v", "at": NOON, "one": 5.0}])
    room.ingest("clicks", [click("u"), click("v"), click("u", "2026-01-01T13:30:00Z")])
    return room


def click(user: str, at: str = LATER) -> dict[str, Any]:
    return {"user_id": user, "at": at, "cost": 1.0, "good": True}


def ask(room: Room, **body: Any) -> pa.Table:
    answer = room.http.post("/training-frames", json={"model": "m", **body})
    assert answer.status_code == 200, answer.get_json()
    return pq.read_table(io.BytesIO(answer.data))


def origin(frame: pa.Table) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = orjson.loads(frame.schema.metadata[b"origin"])
    return found


def again(room: Room, frame: pa.Table, **body: Any) -> pa.Table:
    """The frame made again at its own position."""
    return ask(room, known_until={name: one["known_until"] for name, one in origin(frame).items()}, **body)


def test_a_frame_says_which_rows_of_which_sources_it_was_made_of(room: Room) -> None:
    found = origin(ask(room))
    assert {name: one["rows"] for name, one in found.items()} == {"clicks": 3, "users": 2}
    assert found["users"]["known_until"] < found["clicks"]["known_until"]


def test_what_was_ingested_since_is_hidden_from_a_frame_that_is_made_again(room: Room) -> None:
    before = ask(room)
    room.ingest("users", [{"user_id": "u", "at": NOON, "one": 9.0}])
    room.ingest("clicks", [click("u", "2026-01-01T13:40:00Z")])
    assert ask(room) != before
    assert again(room, before) == before
    assert origin(again(room, before)) == origin(before)


def test_it_is_the_same_after_compaction_has_put_earlier_and_later_rows_into_one_file(room: Room) -> None:
    before = ask(room)
    for _ in range(3):
        room.ingest("users", [{"user_id": "u", "at": NOON, "one": 9.0}])
        room.ingest("clicks", [click("v")])
    assert compact(room.catalogue, "users", fewest=2) == 4
    assert compact(room.catalogue, "clicks", fewest=2) == 4
    assert again(room, before) == before
    assert origin(again(room, before)) == origin(before)


def test_one_time_may_stand_for_the_position_of_every_source(room: Room) -> None:
    before = ask(room)
    room.ingest("clicks", [click("u")])
    assert ask(room, known_until=origin(before)["clicks"]["known_until"]) == before


def test_an_ingest_that_goes_on_is_left_out_now_and_later_though_its_time_is_earlier(room: Room) -> None:
    going_on = journal.begin(room.redis, "clicks", "slow", {})
    room.ingest("clicks", [click("v")])
    frame = ask(room)
    position = origin(frame)["clicks"]["known_until"]
    assert " without " in position
    journal.drop(room.redis, going_on)
    room.ingest("clicks", [click("u")])
    assert again(room, frame) == frame
    assert origin(again(room, frame))["clicks"] == {"known_until": position, "rows": 4}


def test_other_definitions_are_refused_without_a_position_and_taken_with_one(room: Room) -> None:
    own = room.catalogue.definitions.fingerprint
    before = ask(room)
    room.define(OTHER)
    refused = room.http.post("/training-frames", json={"model": "m", "definitions": own})
    assert refused.status_code == 409
    assert ask(room)["two"].to_pylist() == [3.0, 3.0, 15.0]
    assert again(room, before, definitions=own) == before


def test_features_that_compaction_has_dropped_are_computed_again_by_their_own_code(room: Room) -> None:
    own = room.catalogue.definitions.fingerprint
    room.ingest("users", [{"user_id": "w", "at": NOON, "one": 7.0}])
    before = ask(room, detail=True)
    room.define(OTHER)
    assert compact(room.catalogue, "users", fewest=2) == 2
    assert again(room, before, definitions=own, detail=True) == before


def test_a_feature_that_fails_when_it_is_computed_again_has_failed(open_room: OpenRoom) -> None:
    failing = MILL.replace('row["one"] * 2', '1 / (row["one"] - 1)').replace(
        "dtype=float)", "dtype=float, max_failed=1)"
    )
    room = open_room(failing)
    for name, one in (("u", 1.0), ("v", 3.0)):
        room.ingest("users", [{"user_id": name, "at": NOON, "one": one}])
    room.ingest("clicks", [click("u"), click("v")])
    own, before = room.catalogue.definitions.fingerprint, ask(room, detail=True)
    assert before["two.status"].to_pylist() == ["failed", "present"]
    room.define(OTHER)
    compact(room.catalogue, "users", fewest=2)
    assert again(room, before, definitions=own, detail=True) == before


def test_rows_that_were_forgotten_since_are_missing_and_the_count_tells(room: Room) -> None:
    before = ask(room)
    forget(room.catalogue, StatisticsFiles(room.catalogue.storage), "user", "v")
    after = again(room, before)
    assert after.num_rows == 2
    assert {name: one["rows"] for name, one in origin(after).items()} == {"clicks": 2, "users": 1}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"known_until": "soon"}, 422, "known_until is 'soon'; expected a time"),
        ({"known_until": 3}, 422, "known_until is 3; expected a time"),
        ({"known_until": {"clicks": ""}}, 422, "known_until lacks source 'users'"),
        ({"known_until": NOON}, 409, "source 'clicks' has no rows to train 'm' on"),
        ({"known_until": NOON, "definitions": "1f3e"}, 404, "definitions '1f3e' is not known"),
    ],
)
def test_a_position_that_cannot_be_used_is_refused(body: dict[str, Any], status: int, detail: str, room: Room) -> None:
    answer = room.http.post("/training-frames", json={"model": "m", **body})
    assert answer.status_code == status
    assert detail in answer.get_json()["detail"]


def test_a_source_without_rows_has_an_empty_position(open_room: OpenRoom) -> None:

    room = open_room(MILL)
    room.ingest("clicks", [click("u")])
    frame = ask(room)
    room.ingest("users", [{"user_id": "u", "at": NOON, "one": 1.0}])
    assert origin(frame)["users"] == {"known_until": "", "rows": 0}
    assert again(room, frame) == frame
    assert frame["one"].to_pylist() == [None]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.sampled_from("uvw"), st.integers(0, 9)),
        st.tuples(st.just("begin"), st.sampled_from("uvw"), st.integers(0, 2)),
        st.tuples(st.just("end"), st.sampled_from("uvw"), st.integers(0, 2)),
        st.tuples(st.just("compact")),
        st.tuples(st.just("frame")),
    ),
    max_size=20,
)


@settings(max_examples=40)
@given(STEPS)
def test_whatever_happens_since_a_frame_is_made_again_equal(steps: list[tuple[Any, ...]]) -> None:
    """Ingests that begin early and end late, in any order, and compactions between."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "mill.py")
        path.write_text(MILL)
        redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)
        catalogue = Catalogue(redis, Storage(f"file://{folder}/storage"), path)
        catalogue.apply()
        room = Room(catalogue, feature_app(catalogue, Settings()).test_client())
        room.ingest("clicks", [click("u"), click("v"), click("w")])
        frames = []
        for kind, *rest in steps:
            if kind == "frame":
                frames.append(ask(room))
            elif kind == "compact":
                compact(catalogue, "users", fewest=2)
            elif kind == "ingest":
                room.ingest("users", [{"user_id": rest[0], "at": NOON, "one": float(rest[1])}])
            else:  # the same request: begun, and brought to its end later or not at all
                digest = f"{rest[0]}{rest[1]}"
                if kind == "begin":
                    journal.begin(redis, "users", digest, asdict(Ingested(1, 0, 0, 0, [], {}, "", "")))
                else:
                    room.ingest("users", [{"user_id": rest[0], "at": NOON, "one": 0.5}], digest=digest)
        for frame in frames:
            assert again(room, frame) == frame
            assert origin(again(room, frame)) == origin(frame)
