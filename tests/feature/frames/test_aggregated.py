"""Windowed aggregates through the whole feature store: frames, the online store and a reader of the rule agree."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from modelmill.errors import Conflict, Unavailable
from modelmill.state import keys
from modelmill.windows import TileGroup
from services.feature.definitions import catalogue as module
from services.feature.frames import spines
from services.feature.frames.frames import Wanted, spine_frame
from services.feature.frames.joins import AsOf
from services.feature.frames.spines import Spine
from services.feature.proof.explain import explain
from services.feature.rows.schema import TIME
from services.feature.store import history, journal, online, tile_groups
from services.feature.upkeep import rebuild as rebuilding
from services.feature.upkeep.compaction import compact
from tests.feature.conftest import OpenRoom, Room

MILL = """
from modelmill import Aggregate, Entity, Source
carrier = Entity("carrier", key="carrier")
origin = Entity("origin", key="origin")
flights = Source("flights", entities=[carrier, origin], event_time="at", columns={"delay": float | None, "gate": str},
                 max_future="1d")
Aggregate(flights, "delay", "mean", window="2h", hop="30m", by=("origin",))
Aggregate(flights, "delay", "std", window="2h", hop="30m", by=("origin",), available_after="30m")
Aggregate(flights, "delay", "max", window="1h", hop="30m", by=origin)
Aggregate(flights, None, "count", window="1d", by=origin, name="departures")
Aggregate(flights, "gate", "last", window="2h", hop="30m", by=("carrier",))
"""
NAMES = ["delay_mean_2h", "delay_std_2h", "delay_max_1h", "departures"]
NOW = datetime.now(UTC)


def flight(minutes: float, delay: float | None, origin: str = "JFK", gate: str = "A1") -> dict[str, Any]:
    return {"carrier": "AA", "origin": origin, "at": (NOW + timedelta(minutes=minutes)).isoformat(),
            "delay": delay, "gate": gate}  # fmt: skip


FLIGHTS = [
    [flight(-200, 0.1), flight(-130, 0.2), flight(-100, 0.3, "LGA")],
    [flight(-95, -0.7), flight(-65, 1e9), flight(-64, None), flight(-40, -1e9)],
    [flight(-180, 0.4, gate="B2"), flight(-33, 1e-9), flight(-2, 5.0), flight(20, 7.0)],
]


def ingest(room: Room, batches: Sequence[Sequence[dict[str, Any]]] = FLIGHTS) -> None:
    for batch in batches:
        room.ingest("flights", batch)


def frame(room: Room, times: Sequence[datetime], as_of: AsOf = "event", names: Sequence[str] = NAMES) -> pa.Table:
    definitions = room.catalogue.definitions
    table = pa.table({"origin": pa.array(["JFK"] * len(times)), "at": pa.array(times, TIME)})
    spine = Spine(table.schema, "at", table.to_batches())
    wanted = Wanted(definitions.resolve(["origin"], names), as_of, detail=True)
    with spine_frame(room.catalogue.storage, definitions, spine, wanted) as found:
        return found.table()


def served(room: Room, at: datetime, key: str = "JFK", entity: str = "origin") -> dict[str, Any]:
    [found] = online.read(room.redis, room.catalogue.definitions, entity, [key], at)
    assert found.there
    return found.features


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def test_a_frame_and_the_online_store_agree_bit_for_bit(room: Room) -> None:
    ingest(room)
    for minutes in (0, 15, 31, 90, 300):
        at = datetime.now(UTC) + timedelta(minutes=minutes)
        [row] = frame(room, [at]).to_pylist()
        assert repr({name: row[name] for name in NAMES}) == repr({name: served(room, at)[name] for name in NAMES})


def test_they_are_what_the_rule_says(room: Room) -> None:
    ingest(room)
    hop = pd.Timedelta("30min")
    end = pd.Timestamp(NOW).floor(hop)
    rows = pd.DataFrame([row for batch in FLIGHTS for row in batch]).assign(at=lambda f: pd.to_datetime(f["at"]))
    jfk = rows[rows["origin"] == "JFK"]
    in_window = jfk[(jfk["at"] >= end - pd.Timedelta("2h")) & (jfk["at"] < end)]
    [row] = frame(room, [NOW]).to_pylist()
    delays = in_window["delay"].dropna().tolist()
    assert row["delay_mean_2h"] == math.fsum(delays) / len(delays)
    hour = pd.Timestamp(NOW).floor("1h")
    assert row["departures"] == ((jfk["at"] >= hour - pd.Timedelta("1D")) & (jfk["at"] < hour)).sum()


def test_numbers_whose_sum_is_no_float_have_none_online_in_frames_and_explained(room: Room) -> None:
    room.ingest("flights", [flight(-50, 1.7e308), flight(-45, 1.7e308), flight(-40, -1.0), flight(-39, None, "LGA")])
    at = datetime.now(UTC)
    [row] = frame(room, [at]).to_pylist()
    explained = explain(room.redis, room.catalogue.storage, room.catalogue.definitions, "origin", "JFK", at).features
    for found in (row, served(room, at), {name: explained[name].value for name in NAMES}):
        assert {name: found[name] for name in NAMES[:2]} == dict.fromkeys(NAMES[:2])
        assert repr(found["delay_max_1h"]) == repr(row["delay_max_1h"])


def test_a_spine_of_several_chunks_sees_the_same(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(room)
    times = [NOW + timedelta(minutes=7 * n) for n in range(-20, 20)]
    whole = frame(room, times)
    monkeypatch.setattr(spines, "ROWS_PER_CHUNK", 3)
    assert frame(room, times).equals(whole)


def test_as_of_known_hides_what_had_not_been_ingested(room: Room) -> None:
    ingest(room, FLIGHTS[:1])
    between = datetime.now(UTC)
    ingest(room, FLIGHTS[1:])
    [known], [event] = (frame(room, [between], as_of).to_pylist() for as_of in ("known", "event"))
    assert known["departures"] < event["departures"]


def test_a_status_says_whether_there_is_a_value(room: Room) -> None:
    ingest(room)
    [row] = frame(room, [NOW + timedelta(days=3)]).to_pylist()
    assert (row["delay_mean_2h"], row["delay_mean_2h.status"]) == (None, "missing")
    assert (row["departures"], row["departures.status"]) == (0, "present")


def test_an_entity_of_which_there_are_only_aggregates_is_there(room: Room) -> None:
    ingest(room)
    assert set(served(room, NOW, "AA", "carrier")) == {"gate_last_2h"}
    assert not online.read(room.redis, room.catalogue.definitions, "carrier", ["ZZ"], NOW)[0].there


def test_a_request_that_is_sent_twice_counts_once(room: Room) -> None:
    for _ in range(2):
        room.ingest("flights", FLIGHTS[0], digest="same")
    assert served(room, NOW)["departures"] == frame(room, [NOW]).to_pylist()[0]["departures"] == 2


# --- rows from before

BEFORE = MILL.split("Aggregate(flights")[0]
ADDED = BEFORE + MILL[len(BEFORE) :].split("Aggregate(flights, None")[0]


def tiles(room: Room) -> dict[str, dict[str, str]]:
    return {key: room.redis.hgetall(key) for key in room.redis.scan_iter("tiles:*")}


@pytest.mark.parametrize("slab", [1, 4, 1000])
def test_an_added_aggregate_counts_the_rows_that_were_there(
    slab: int, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_groups, "SLAB", slab)
    room = open_room(BEFORE)
    ingest(room)
    room.define(MILL)
    at = datetime.now(UTC)
    [row] = frame(room, [at]).to_pylist()
    assert repr({name: row[name] for name in NAMES}) == repr({name: served(room, at)[name] for name in NAMES})


def test_a_row_that_comes_in_meanwhile_counts_once(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(BEFORE)
    ingest(room, FLIGHTS[:1])
    fill = tile_groups.fill

    def watched(*arguments: Any) -> None:
        monkeypatch.undo()
        ingest(room, FLIGHTS[1:2])
        fill(*arguments)
        ingest(room, FLIGHTS[2:])

    monkeypatch.setattr(module.tile_groups, "fill", watched)
    room.define(MILL)
    at = datetime.now(UTC)
    [row] = frame(room, [at]).to_pylist()
    assert repr({name: row[name] for name in NAMES}) == repr({name: served(room, at)[name] for name in NAMES})


def test_a_request_from_before_that_goes_on_is_waited_for(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(BEFORE)
    ingest(room, FLIGHTS[:1])
    journal.begin(room.redis, "flights", "slow", {})
    monkeypatch.setattr(journal, "INGEST_WAIT_SECONDS", 0.2)
    with pytest.raises(Conflict, match="requests to flights that began before are still open"):
        room.define(MILL)
    assert room.catalogue.definitions.code.text == BEFORE


@pytest.mark.parametrize("compacted", [False, True])
def test_a_filling_that_was_killed_goes_on_where_it_stopped(
    compacted: bool, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(tile_groups, "SLAB", 3)
    room = open_room(BEFORE)
    ingest(room)
    add_slab, added = tile_groups._add_slab, 0

    def dies_after_the_second(*arguments: Any) -> None:
        nonlocal added
        added += 1
        add_slab(*arguments)
        if added == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(tile_groups, "_add_slab", dies_after_the_second)
        with pytest.raises(Killed):
            room.define(MILL)
    if compacted:
        compact(room.catalogue, "flights", fewest=2)
    room.redis.delete("definitions:lock")
    room.catalogue.apply()
    at = datetime.now(UTC)
    [row] = frame(room, [at]).to_pylist()
    assert repr({name: row[name] for name in NAMES}) == repr({name: served(room, at)[name] for name in NAMES})


@pytest.mark.parametrize("others", ["filled it", "emptied it", "emptied and filled it"])
def test_who_was_stopped_amid_a_filling_adds_nothing_to_that_of_others(
    others: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_groups, "SLAB", 3)
    ingest(room)
    group = next(g for g in room.catalogue.definitions.tile_groups(room.source("flights")) if g.hop == 3600)

    def fill() -> None:
        tile_groups.fill(room.redis, room.catalogue.storage, group, lambda _: None)

    add_slab, added = tile_groups._add_slab, 0

    def stopped_before_the_second(*arguments: Any) -> Any:
        nonlocal added
        added += 1
        if added == 2:
            if others != "filled it":
                tile_groups.restart(room.redis, "flights", [group])
            if others != "emptied it":
                fill()
        return add_slab(*arguments)

    tile_groups.restart(room.redis, "flights", [group])
    with monkeypatch.context() as patched:
        patched.setattr(tile_groups, "_add_slab", stopped_before_the_second)
        with pytest.raises(Conflict, match="others went on") if others == "emptied it" else nullcontext():
            fill()
    fill()
    at = datetime.now(UTC)
    [row] = frame(room, [at]).to_pylist()
    assert repr({name: row[name] for name in NAMES}) == repr({name: served(room, at)[name] for name in NAMES})


def test_tiles_that_no_aggregate_reads_any_more_are_gone(room: Room) -> None:
    ingest(room)
    assert tiles(room)
    room.define(BEFORE)
    assert (tiles(room), list(room.redis.scan_iter("tilegroup:*"))) == ({}, [])


def test_a_group_says_in_redis_from_when_on_it_counts(room: Room) -> None:
    ingest(room)
    groups = room.catalogue.definitions.tile_groups(room.source("flights"))
    for group in groups:
        assert isinstance(group, TileGroup)
        found = room.redis.hgetall(f"tilegroup:{group.name}")
        assert (found.keys(), found["filled"]) == ({"start", "rows", "filled"}, "1")


def test_tiles_are_readable(room: Room) -> None:
    ingest(room, [[flight(-30, 12.5)]])
    [content] = [text for key, hash_ in tiles(room).items() if "origin.30m" in key for text in hash_.values()]
    assert '"sum":["12.5"]' in content
    assert history.names(room.catalogue.storage, "flights")


# --- rebuilt


def rebuild(room: Room) -> None:
    room.redis.hset(keys.REBUILD, mapping={"state": "running", "entity": "", "rows": 0, "total": 0})
    rebuilding.rebuild(room.catalogue)


@pytest.mark.parametrize("emptied", ["all of Redis", "the tiles"])
def test_tiles_that_were_lost_are_restored_from_the_history(emptied: str, room: Room) -> None:
    ingest(room)
    at = datetime.now(UTC)
    before = served(room, at)
    if emptied == "all of Redis":
        room.redis.flushall()
        room.catalogue.apply()
    else:
        room.redis.delete(*room.redis.scan_iter("tiles:*"))
    rebuild(room)
    assert repr(served(room, at)) == repr(before)


def test_rows_that_come_in_while_tiles_are_filled_again_count_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(room, FLIGHTS[:1])
    fill = tile_groups.fill

    def watched(*arguments: Any) -> None:
        monkeypatch.undo()
        ingest(room, FLIGHTS[1:2])
        fill(*arguments)
        ingest(room, FLIGHTS[2:])

    monkeypatch.setattr(rebuilding.tile_groups, "fill", watched)
    rebuild(room)
    at = datetime.now(UTC)
    [row] = frame(room, [at]).to_pylist()
    assert repr({name: row[name] for name in NAMES}) == repr({name: served(room, at)[name] for name in NAMES})


def test_while_tiles_are_emptied_rows_are_refused_for_some_seconds(room: Room) -> None:
    with journal.paused(room.redis, "flights"), pytest.raises(Unavailable, match="takes no rows while its tiles are"):
        ingest(room, FLIGHTS[:1])
    ingest(room, FLIGHTS[:1])
    assert served(room, NOW)["departures"] == 2


# --- explained


def test_an_aggregate_is_explained_by_its_window(room: Room) -> None:
    ingest(room)
    definitions = room.catalogue.definitions
    found = explain(room.redis, room.catalogue.storage, definitions, "origin", "JFK").features["delay_mean_2h"]
    assert found.status == "present"
    assert re.fullmatch(
        r"mean of \d rows of source 'flights' with \S+ <= event time < \S+, edges at whole 30m", found.why
    )
    assert found.field.startswith("flights.origin.30m@")


def test_what_was_known_at_a_time_is_explained_as_of_it(room: Room) -> None:
    ingest(room, FLIGHTS[:1])
    between = datetime.now(UTC)
    ingest(room, FLIGHTS[1:])
    definitions = room.catalogue.definitions

    def departures(as_of: AsOf) -> Any:
        return explain(room.redis, room.catalogue.storage, definitions, "origin", "JFK", between, as_of).features

    known, event = departures("known")["departures"], departures("event")["departures"]
    assert (known.value, known.why.split(" rows")[0]) == (2, "count of 2")
    assert event.value > 2


def test_a_tile_that_differs_from_the_history_is_told(room: Room) -> None:
    ingest(room)
    room.redis.delete(*room.redis.scan_iter("tiles:flights.origin.30m*"))
    definitions = room.catalogue.definitions
    found = explain(room.redis, room.catalogue.storage, definitions, "origin", "JFK").features["delay_max_1h"]
    assert (found.value, found.status) == (None, "missing")
    assert "; but the history says " in found.why
