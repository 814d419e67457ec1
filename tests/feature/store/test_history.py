from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelmill.declare.definitions_file import load
from modelmill.storage import Storage
from services.feature.store import history
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Entity, Source, feature
user = Entity("user", key="user_id")
visits = Source("visits", entity=user, event_time="at", columns={"pages": int, "site": str | None})

@feature(user, dtype=int)
def twice(row):
    return row["pages"] * 2
"""
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def visit(pages: int, at: datetime = NOON) -> dict[str, object]:
    return {"user_id": "u", "pages": pages, "at": at.isoformat()}


def test_a_request_is_one_file_under_the_day_of_its_ingest(room: Room) -> None:
    done = room.ingest("visits", [visit(1), visit(2)])
    assert history.names(room.catalogue.storage, "visits") == [done.file]
    today = datetime.now(UTC)
    assert done.file.startswith(f"history/visits/day={today:%Y-%m-%d}/{today:%Y%m%dT%H}")


def test_a_file_is_readable_by_any_parquet_reader(room: Room) -> None:
    done = room.ingest("visits", [visit(3)])
    [row] = pd.read_parquet(Path(room.catalogue.storage.path(done.file))).to_dict("records")
    version = room.catalogue.definitions.features["visits"]["twice"].version
    assert (row["user_id"], row["pages"], row[f"twice@{version}"]) == ("u", 3, 6)
    assert pd.isna(row["site"])
    assert row["_event_time"] == pd.Timestamp(NOON)
    assert abs(row["_ingest_time"] - pd.Timestamp.now("UTC")) < pd.Timedelta("1 minute")


def test_a_file_says_which_versions_computed_its_features(room: Room) -> None:
    done = room.ingest("visits", [visit(3)])
    version = room.catalogue.definitions.features["visits"]["twice"].version
    assert f"twice@{version}" in history.stored_columns(room.catalogue.storage, done.file)


def test_rows_come_in_the_order_of_their_ingest(room: Room) -> None:
    for first in range(0, 9, 3):
        room.ingest("visits", [visit(first + n, NOON - timedelta(days=first + n)) for n in range(3)])
    assert room.history("visits")["pages"].to_pylist() == list(range(9))


def test_order_of_ingest_does_not_end_with_the_day(storage: Storage, room: Room) -> None:
    source, definitions = room.source("visits"), room.catalogue.definitions
    schema = history.schema(definitions, source)
    for day, pages in ((10, 3), (2, 1), (9, 2)):
        row = {"user_id": "u", "pages": pages, "_event_time": NOON, "_ingest_time": NOON}
        name = history.name_of("visits", datetime(2026, 1, day, tzinfo=UTC), "digest")
        history.write(storage, name, pa.Table.from_pylist([row], schema))
    assert history.read(storage, schema, "visits", ["pages"])["pages"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [(None, None, [0, 1, 2, 3]), (1, None, [1, 2, 3]), (None, 3, [0, 1, 2]), (1, 3, [1, 2]), (9, None, [])],
)
def test_rows_are_cut_by_event_time_with_the_start_and_without_the_end(
    start: int | None, end: int | None, pages: list[int], room: Room
) -> None:
    room.ingest("visits", [visit(hours, NOON + timedelta(hours=hours)) for hours in range(4)])
    moments = [None if hours is None else NOON + timedelta(hours=hours) for hours in (start, end)]
    schema = history.schema(room.catalogue.definitions, room.source("visits"))
    found = history.read(room.catalogue.storage, schema, "visits", ["pages"], start=moments[0], end=moments[1])
    assert found["pages"].to_pylist() == pages


def test_a_source_without_rows_has_an_empty_table_of_its_types(room: Room) -> None:
    found = room.history("visits")
    assert found.num_rows == 0
    assert found.schema.field("pages").type == pa.int64()


def test_a_column_that_came_later_is_null_in_older_rows(open_room: OpenRoom) -> None:
    room = open_room(MILL)
    room.ingest("visits", [visit(1)])
    room.define(MILL.replace('"site": str | None', '"site": str | None, "score": float | None'))
    room.ingest("visits", [visit(2) | {"score": 0.5}])
    assert room.history("visits")["score"].to_pylist() == [None, 0.5]


def test_a_column_that_is_no_longer_declared_stays_in_the_file_that_a_backfill_writes(open_room: OpenRoom) -> None:
    room = open_room(MILL)
    done = room.ingest("visits", [visit(1) | {"site": "shop"}])
    without = MILL.replace(', "site": str | None', "").replace("* 2", "* 3")
    room.define(without)
    stored = pq.read_table(room.catalogue.storage.path(done.file))
    version = room.catalogue.definitions.features["visits"]["twice"].version
    assert (stored["site"].to_pylist(), stored[f"twice@{version}"].to_pylist()) == (["shop"], [3])
    room.define(MILL)
    assert room.history("visits")["site"].to_pylist() == ["shop"]


def test_the_schema_has_keys_columns_features_and_times(tmp_path: Path) -> None:
    (tmp_path / "mill.py").write_text(MILL)
    definitions = load(tmp_path / "mill.py")
    names = history.schema(definitions, definitions.source("visits")).names
    version = definitions.features["visits"]["twice"].version
    assert names == ["user_id", "pages", "site", f"twice@{version}", "_event_time", "_ingest_time", "_failed"]
