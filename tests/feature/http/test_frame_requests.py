"""`POST /training-frames`: what may be asked for, of a model or of an uploaded spine."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from werkzeug.test import TestResponse

from modelmill.settings import Settings
from services.feature.app import feature_app
from tests.feature.conftest import FORMATS, OpenRoom, Room
from tests.feature.frames.test_frames import MILL, NOON, at

AIRPORTS = "carrier_id,origin_id,event_time,note\n"


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    """Weather and airlines before and after noon, all of it ingested today."""
    room = open_room(MILL.replace('event_time="at", columns={"wind"', 'event_time="at", max_age="2h", columns={"wind"'))
    room.ingest("weather", [
        {"origin_id": "JFK", "at": at(0), "wind": 3.0, "delay": 1.0},
        {"origin_id": "JFK", "at": at(2), "wind": 5.0, "delay": None},
    ])  # fmt: skip
    room.ingest("airlines", [{"carrier_id": "7", "at": at(-5), "fleet": 800, "delay": 8.0}])
    return room


def ask(room: Room, body: str | bytes, kind: str = "text/csv", **query: str) -> TestResponse:
    return room.http.post("/training-frames", data=body, content_type=kind, query_string=query)


def rows(answer: TestResponse) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.get_json()
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(answer.data)).to_pylist()
    return found


def test_a_spine_gets_the_features_of_several_entities_row_for_row(room: Room) -> None:
    spine = f"{AIRPORTS}7,JFK,{at(3)},x\n7,JFK,{at(1)},y\n7,JFK,{at(1)},y\n,JFK,{at(2)},z\n8,,{at(2)},\n7,JFK,{at(5)},late\n"
    found = rows(ask(room, spine, features="origin.wind,carrier.fleet"))
    assert [tuple(row.values()) for row in found] == [
        ("7", "JFK", NOON + timedelta(hours=3), "x", 5.0, 800),
        ("7", "JFK", NOON + timedelta(hours=1), "y", 3.0, 800),
        ("7", "JFK", NOON + timedelta(hours=1), "y", 3.0, 800),
        (None, "JFK", NOON + timedelta(hours=2), "z", 5.0, None),
        ("8", None, NOON + timedelta(hours=2), None, None, None),
        ("7", "JFK", NOON + timedelta(hours=5), "late", None, 800),
    ]
    assert list(found[0]) == ["carrier_id", "origin_id", "event_time", "note", "origin.wind", "carrier.fleet"]


def test_uuids_and_whole_decimals_are_keys(room: Room) -> None:
    sink = io.BytesIO()
    keys = {"carrier_id": pa.array([Decimal(7)], pa.decimal128(18, 0)), "origin_id": pa.array([bytes(16)], pa.uuid())}
    pq.write_table(pa.table(keys | {"event_time": [at(3)]}), sink)
    room.ingest("weather", [{"origin_id": str(UUID(int=0)), "at": at(2), "wind": 9.0, "delay": None}])
    [row] = rows(ask(room, sink.getvalue(), FORMATS["parquet"][0], features="origin.wind,carrier.fleet"))
    assert (row["origin_id"], row["origin.wind"], row["carrier.fleet"]) == (str(UUID(int=0)), 9.0, 800)


@pytest.mark.parametrize(("ahead", "status"), [(timedelta(minutes=4), 200), (timedelta(minutes=6), 422)])
def test_a_spine_asks_no_later_than_rows_may_be(ahead: timedelta, status: int, room: Room) -> None:
    moment = (datetime.now(UTC) + ahead).isoformat()
    answer = ask(room, f"{AIRPORTS}7,JFK,{moment},x\n", features="carrier.fleet")
    assert answer.status_code == status
    if status == 422:
        assert f"row 1, column 'event_time', value '{moment}': is in the future" in answer.get_json()["detail"]


def test_a_spine_asks_as_late_as_a_source_of_forecasts_has_rows(open_room: OpenRoom) -> None:
    room = open_room(
        MILL.replace('event_time="at", columns={"wind"', 'event_time="at", max_future="9d", columns={"wind"')
    )
    moment = (datetime.now(UTC) + timedelta(days=8)).isoformat()
    room.ingest("weather", [{"origin_id": "JFK", "at": moment, "wind": 3.0, "delay": 1.0}])
    body = f"{AIRPORTS}7,JFK,{moment},x\n"
    assert rows(ask(room, body, features="origin.wind,carrier.fleet"))[0]["origin.wind"] == 3.0
    assert ask(room, body, features="carrier.fleet").status_code == 422


def test_detail_says_why_a_value_is_not_there(room: Room) -> None:
    spine = f"{AIRPORTS}7,JFK,{at(3)},\n7,JFK,{at(5)},\n9,LGA,{at(3)},\n"
    found = rows(ask(room, spine, features="origin.wind,origin.delay,carrier.fleet", detail="true"))
    assert [[row[f"{name}.status"] for name in ("origin.wind", "origin.delay", "carrier.fleet")] for row in found] == [
        ["present", "missing", "present"],
        ["expired", "expired", "present"],
        ["missing", "missing", "missing"],
    ]


def test_a_model_names_the_features(room: Room) -> None:
    found = rows(ask(room, f"{AIRPORTS}7,JFK,{at(1)},x\n", model="late"))
    features = ["fleet", "wind_squared", "wind", "carrier.delay", "origin.delay", "runways"]
    assert [found[0][name] for name in features] == [800, 9.0, 3.0, 8.0, 1.0, None]
    assert list(found[0]) == ["carrier_id", "origin_id", "event_time", "note", *features]


def test_plain_names_are_those_of_the_entities(room: Room) -> None:
    found = rows(ask(room, f"{AIRPORTS}7,JFK,{at(1)},x\n", features="wind,fleet", entities="origin,carrier"))
    assert (found[0]["wind"], found[0]["fleet"]) == (3.0, 800)


def test_as_of_known_hides_what_had_not_been_ingested_yet(room: Room) -> None:
    now = datetime.now(UTC) + timedelta(seconds=1)
    spine = f"{AIRPORTS}7,JFK,{at(1)},\n7,JFK,{now.isoformat()},\n"
    found = rows(ask(room, spine, features="carrier.fleet,origin.wind", as_of="known", detail="1"))
    assert [row["carrier.fleet"] for row in found] == [None, 800]
    assert [row["origin.wind.status"] for row in found] == ["missing", "expired"]
    room.ingest("flights", [{"carrier_id": "7", "origin_id": "JFK", "at": at(1), "hour": 13, "late": True}])
    for as_of, fleet in (("event", 800), ("known", None)):
        answer = room.http.post("/training-frames", json={"model": "late", "as_of": as_of, "detail": True})
        [row] = rows(answer)
        assert (row["fleet"], row["fleet.status"]) == (fleet, "present" if fleet else "missing")


def test_a_parquet_spine_has_whole_numbers_as_keys_and_its_own_time_column(room: Room) -> None:
    table = pa.table({"when": pa.array([NOON], pa.timestamp("us", "Europe/Berlin")), "carrier_id": pa.array([7])})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    kind = FORMATS["parquet"][0]
    [row] = rows(ask(room, sink.getvalue(), kind, features="carrier.fleet", time="when"))
    assert row == {"when": NOON, "carrier_id": 7, "carrier.fleet": 800}


def test_times_across_the_end_of_summer_time_see_what_was_before_them(room: Room) -> None:
    room.ingest("airlines", [{"carrier_id": "7", "at": "2026-10-25T01:10:00Z", "fleet": 900, "delay": None}])
    spine = "carrier_id,event_time\n7,2026-10-25T02:15:00+02:00\n7,2026-10-25T02:15:00+01:00\n"
    assert [row["carrier.fleet"] for row in rows(ask(room, spine, features="carrier.fleet"))] == [800, 900]


@pytest.mark.parametrize("accept", ["application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"])
def test_a_spine_of_no_rows_is_a_frame_of_no_rows(accept: str, room: Room) -> None:
    answer = room.http.post(
        "/training-frames?features=carrier.fleet", data=AIRPORTS, content_type="text/csv", headers={"Accept": accept}
    )
    read = (
        pa.ipc.open_stream(answer.data).read_all if "arrow" in accept else pq.ParquetFile(io.BytesIO(answer.data)).read
    )
    table = read()
    assert (table.num_rows, table.column_names[-1], table.schema.types[-1]) == (0, "carrier.fleet", pa.int64())


REFUSED: dict[str, tuple[Mapping[str, str], int, str]] = {
    "nothing asked": ({}, 422, "expected with a spine either model=NAME or features="),
    "both asked": ({"model": "late", "features": "fleet"}, 422, "expected with a spine either model=NAME or features="),
    "an unknown model": ({"model": "latte"}, 404, "model 'latte' is not known; did you mean 'late'?"),
    "an unknown feature": ({"features": "carrier.fleets"}, 422, "feature 'carrier.fleets' is not known"),
    "an unknown entity": ({"features": "carrion.fleet"}, 422, "entity 'carrion' is not known; did you mean 'carrier'?"),
    "whose": ({"features": "fleet"}, 422, "feature 'fleet': whose? write user.NAME, or add entities=user"),
    "which": ({"features": "delay", "entities": "carrier,origin"}, 422, "feature 'delay' is ambiguous; write carrier.delay or origin.delay"),
    "twice": ({"features": "carrier.fleet,carrier.fleet"}, 422, "'carrier.fleet' is named twice"),
    "as of": ({"features": "carrier.fleet", "as_of": "now"}, 422, "as_of is 'now'; expected event or known"),
    "detail": ({"features": "carrier.fleet", "detail": "much"}, 422, "detail='much'; expected true or false"),
    "a span": ({"features": "carrier.fleet", "start": at(0)}, 422, "query parameter 'start' is not taken with a spine"),
    "no time": ({"features": "carrier.fleet", "time": "at"}, 422, "the spine has no column 'at'"),
    "a key as time": ({"features": "carrier.fleet", "time": "carrier_id"}, 422, "column 'carrier_id' holds join keys"),
    "a name twice": ({"features": "note", "entities": "noted"}, 422, "column 'note' would be in the frame twice; rename it"),
    "a wrong time": ({"features": "carrier.fleet", "time": "note"}, 422, "row 1, column 'note', value 'x': expected a time such as"),
}  # fmt: skip


@pytest.mark.parametrize(("query", "status", "detail"), REFUSED.values(), ids=REFUSED)
def test_a_spine_is_refused_with_the_reason(query: Mapping[str, str], status: int, detail: str, room: Room) -> None:
    noted = 'noted = Entity("noted", key="origin_id")\nSource("notes", entity=noted, columns={"note": str})\n'
    room.define(room.catalogue.path.read_text() + noted)
    answer = ask(room, f"{AIRPORTS}7,JFK,{at(1)},x\n", **query)
    assert answer.status_code == status
    assert detail in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({"as_of": "now"}, "as_of is 'now'; expected event or known"),
        ({"as_of": ["known"]}, "as_of is ['known']; expected event or known"),
        ({"detail": "true"}, "detail is 'true'; expected true or false"),
    ],
)
def test_a_model_s_frame_is_refused_with_the_reason(asked: dict[str, Any], detail: str, room: Room) -> None:
    answer = room.http.post("/training-frames", json={"model": "late", **asked})
    assert (answer.status_code, answer.get_json()["detail"]) == (422, detail)


def test_a_spine_over_the_limit_of_bodies_is_a_413(room: Room) -> None:
    http = feature_app(room.catalogue, Settings(max_body_bytes=1000)).test_client()
    answer = http.post("/training-frames?features=carrier.fleet", data=b"x" * 1001, content_type="text/csv")
    assert answer.status_code == 413


def test_pandas_reads_the_statuses_as_text(room: Room) -> None:
    answer = ask(room, f"{AIRPORTS}7,JFK,{at(1)},x\n", features="carrier.fleet", detail="true")
    assert pd.read_parquet(io.BytesIO(answer.data))["carrier.fleet.status"].tolist() == ["present"]
