from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelmill.errors import Conflict
from services.feature.frames import training_frame, visible_rows
from tests.feature.conftest import OpenRoom, Room

Row = tuple[int, str | None]
"""Time and key."""


def brute_force(spine: Sequence[Row], rows: Sequence[Row]) -> list[int | None]:
    """The rule, read aloud: of the rows with this key and event_time <= t the newest; of equal times the later."""
    seen: list[int | None] = []
    for time, key in spine:
        visible = [
            (rows[i][0], i) for i in range(len(rows)) if key is not None and rows[i][1] == key and rows[i][0] <= time
        ]
        seen.append(max(visible)[1] if visible else None)
    return seen


def chunked(values: Sequence[Any], kind: pa.DataType, cuts: Sequence[int]) -> pa.ChunkedArray:
    """`values` in chunks that end at `cuts`."""
    ends = [0, *sorted(cut % (len(values) + 1) for cut in cuts), len(values)]
    return pa.chunked_array([pa.array(values[a:b], kind) for a, b in itertools.pairwise(ends)], kind)


def columns(
    rows: Sequence[Row], kind: pa.DataType, cuts: Sequence[int] = ()
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    times = [time if pa.types.is_integer(kind) else datetime.fromtimestamp(time, UTC) for time, _ in rows]
    return chunked(times, kind, cuts), chunked([key for _, key in rows], pa.string(), cuts)


ROWS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "", "ä", None])), max_size=12)
CUTS = st.lists(st.integers(0, 100), max_size=3)


@given(ROWS, ROWS, CUTS, CUTS, st.sampled_from([pa.int64(), pa.timestamp("us", "UTC")]))
@example([], [(1, "a")], [], [], pa.int64())
@example([(1, "a")], [], [], [], pa.int64())
@example([(1, None)], [(0, None)], [], [], pa.int64())
def test_a_spine_row_sees_what_the_rule_says(
    spine: list[Row], rows: list[Row], spine_cuts: list[int], row_cuts: list[int], kind: pa.DataType
) -> None:
    seen = visible_rows(*columns(spine, kind, spine_cuts), *columns(rows, kind, row_cuts))
    assert seen.to_pylist() == brute_force(spine, rows)


SEEN = {
    "the newest before": ([(5, "a")], [(1, "a"), (3, "a"), (2, "a")], [1]),
    "one at the very time": ([(3, "a")], [(1, "a"), (3, "a")], [1]),
    "none from after": ([(2, "a")], [(3, "a")], [None]),
    "of equal times the later ingest": ([(3, "a")], [(3, "a"), (3, "a"), (1, "a")], [1]),
    "none of another key": ([(3, "a")], [(1, "b")], [None]),
    "none for a null key": ([(3, None)], [(1, None), (1, "a")], [None]),
    "the same for the same": ([(3, "a"), (3, "a")], [(1, "a")], [0, 0]),
    "each in its place": ([(9, "b"), (1, "a"), (5, "b")], [(4, "b"), (0, "a"), (7, "b")], [2, 1, 0]),
}


@pytest.mark.parametrize(("spine", "rows", "expected"), SEEN.values(), ids=SEEN)
def test_visible_is(spine: list[Row], rows: list[Row], expected: list[int | None]) -> None:
    assert visible_rows(*columns(spine, pa.int64()), *columns(rows, pa.int64())).to_pylist() == expected


# --- training frames

MILL = """
from modelmill import Entity, Model, Source, feature

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
    definitions = room.catalogue.definitions
    return training_frame(room.catalogue.storage, definitions, definitions.model("late"), start=start, end=end)


def test_a_frame_has_time_features_inputs_and_label(room: Room) -> None:
    assert frame(room).column_names == [
        "_event_time", "fleet", "wind_squared", "wind", "carrier.delay", "origin.delay", "runways", "hour", "late",
    ]  # fmt: skip


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
    definitions = users.catalogue.definitions
    model = definitions.model("user_target")
    [row] = training_frame(users.catalogue.storage, definitions, model, start=None, end=None).to_pylist()
    assert (row["feature_1"], row["feature_3"], row["target"]) == (3.0, 9.0, 1)
