from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from modelmill.errors import Conflict
from services.feature.frames.frames import model_frame
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Model, Source, by_group, feature

carrier = Entity("carrier", key="carrier_id")
origin = Entity("origin", key="origin_id")
airlines = Source("airlines", entity=carrier, event_time="at", columns={"fleet": int, "delay": float | None})
weather = Source("weather", entity=origin, event_time="at", columns={"wind": float, "delay": float | None})
runways = Source("runways", entity=origin, columns={"runways": int})
flights = Source("flights", entities=[carrier, origin], event_time="at", columns={"hour": int, "late": bool | None})

@feature(weather, dtype=float)
def wind_squared(row):
    return row["wind"] ** 2

Model("late", entities=[carrier, origin], label="late", estimator=None, inputs={"hour": int},
      features=["fleet", "wind_squared", "wind", "carrier.delay", "origin.delay", "runways"])
Model("parted", entities=[carrier], label="late", estimator=None, source=flights, features=["fleet"],
      split=by_group("carrier_id"), segments=["origin_id", "hour"])
"""
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


def at(hours: float) -> str:
    return (NOON + timedelta(hours=hours)).isoformat()


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    """Late rows, unsorted rows, ties, unknown keys; flights in the wrong order."""
    room = open_room(MILL)
    room.ingest("weather", [
        {"origin_id": "JFK", "at": at(0), "wind": 3.0, "delay": 1.0},
        {"origin_id": "JFK", "at": at(2), "wind": 5.0, "delay": None},
        {"origin_id": "LGA", "at": at(1), "wind": 7.0, "delay": 2.0},
    ])  # fmt: skip
    room.ingest("weather", [{"origin_id": "JFK", "at": at(2), "wind": 6.0, "delay": 3.0}])
    room.ingest("airlines", [
        {"carrier_id": "AA", "at": at(5), "fleet": 900, "delay": 9.0},
        {"carrier_id": "AA", "at": at(-5), "fleet": 800, "delay": 8.0},
    ])  # fmt: skip
    room.ingest("flights", [
        {"carrier_id": "AA", "origin_id": "JFK", "at": at(3), "hour": 15, "late": True},
        {"carrier_id": "AA", "origin_id": "JFK", "at": at(1), "hour": 13, "late": False},
        {"carrier_id": "UA", "origin_id": "LGA", "at": at(1), "hour": 13, "late": None},
        {"carrier_id": "AA", "origin_id": "EWR", "at": at(6), "hour": 18, "late": True},
        {"carrier_id": "AA", "origin_id": "JFK", "at": at(1), "hour": 14, "late": False},
    ])  # fmt: skip
    return room


def frame(room: Room, start: datetime | None = None, end: datetime | None = None) -> pa.Table:
    return model(room, "late", start=start, end=end)


def model(room: Room, name: str, **asked: Any) -> pa.Table:
    definitions = room.catalogue.definitions
    with model_frame(room.catalogue.storage, definitions, definitions.model(name), **asked) as found:
        return found.table()


def test_a_frame_has_time_features_inputs_and_label(room: Room) -> None:
    assert frame(room).column_names == [
        "_event_time", "fleet", "wind_squared", "wind", "carrier.delay", "origin.delay", "runways", "hour", "late",
    ]  # fmt: skip


def test_a_frame_carries_join_keys_and_columns_for_the_split_and_the_segments(room: Room) -> None:
    table = model(room, "parted")
    assert table.column_names == ["_event_time", "fleet", "late", "carrier_id", "origin_id", "hour"]
    assert table["origin_id"].to_pylist() == ["JFK", "LGA", "JFK", "JFK", "EWR"]
    assert table["carrier_id"].to_pylist() == ["AA", "UA", "AA", "AA", "AA"]
    assert table["hour"].to_pylist() == [13, 13, 14, 15, 18]


def test_a_frame_has_every_label_of_its_model(open_room: OpenRoom) -> None:
    more = 'Model("both", entities=[origin], label=["runways", "gates"], estimator=None, features=["wind"], source=runways)'
    room = open_room(MILL.replace('columns={"runways": int}', 'columns={"runways": int, "gates": int}') + more)
    room.ingest("runways", [{"origin_id": "JFK", "runways": 4, "gates": 128}])
    assert model(room, "both").select(["runways", "gates"]).to_pylist() == [{"runways": 4, "gates": 128}]


def test_a_frame_joins_several_entities_and_sources_as_of_each_label(room: Room) -> None:
    one, two, three = NOON + timedelta(hours=1), NOON + timedelta(hours=3), NOON + timedelta(hours=6)
    rows = [list(row.values()) for row in frame(room).to_pylist()]
    assert rows == [
        [one, 800, 9.0, 3.0, 8.0, 1.0, None, 13, False],
        [one, None, 49.0, 7.0, None, 2.0, None, 13, None],
        [one, 800, 9.0, 3.0, 8.0, 1.0, None, 14, False],
        [two, 800, 36.0, 6.0, 8.0, 3.0, None, 15, True],
        [three, 900, None, None, 9.0, None, None, 18, True],
    ]


def test_what_was_ingested_without_event_time_is_seen_from_its_ingest_on(room: Room) -> None:
    room.ingest("runways", [{"origin_id": "JFK", "runways": 4}])
    later = datetime.now(UTC) + timedelta(seconds=1)
    room.ingest("flights", [{"carrier_id": "AA", "origin_id": "JFK", "at": later.isoformat(), "hour": 1, "late": True}])
    assert frame(room)["runways"].to_pylist() == [None] * 5 + [4]


def test_a_frame_is_cut_by_the_label_s_time_and_sees_what_was_before_the_cut(room: Room) -> None:
    found = frame(room, start=NOON + timedelta(hours=3), end=NOON + timedelta(hours=6))
    assert found.select(["hour", "wind"]).to_pylist() == [{"hour": 15, "wind": 6.0}]


@pytest.mark.parametrize("hours", [24, None])
def test_a_frame_of_no_rows_is_a_conflict_that_says_what_to_do(
    hours: int | None, open_room: OpenRoom, room: Room
) -> None:
    if hours is None:
        room.catalogue.storage.files.rm(room.catalogue.storage.path("history/flights"), recursive=True)
    start = None if hours is None else NOON + timedelta(hours=hours)
    with pytest.raises(Conflict, match=r"source 'flights' has no rows to train 'late' on.*; ingest some first"):
        frame(room, start=start)


def test_a_model_of_one_source_sees_the_row_of_its_label(users: Room) -> None:
    users.ingest("users", [{"user_id": "u", "feature_1": 3.0, "feature_2": 1.0, "target": 1}])
    [row] = model(users, "user_target").to_pylist()
    assert (row["feature_1"], row["feature_3"], row["target"]) == (3.0, 9.0, 1)
