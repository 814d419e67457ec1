"""Each event counts exactly once, in windows that expire and can be read with redis-cli."""

from __future__ import annotations

import time
from datetime import timedelta
from threading import Event as Flag
from threading import Thread

import pytest
from redis import WatchError

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from services.monitor.aggregates import ENTRIES_PER_TRANSACTION, STREAM, Aggregates, Lag
from services.monitor.windows import COUNTED, EXPIRED, LOST, REJECTED, Slot, minute_of
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.monitor.events import NOW, aggregates_of, append_live, count_all, counted, failed, served

MINUTE = minute_of(NOW)
WINDOW = keys.monitor_window("m", 1, "2026-11-23T23:47Z")


def windows(aggregates: Aggregates, model: str = "m") -> dict[Slot, int]:
    found = aggregates.windows(model, NOW - timedelta(hours=48))
    return {slot: window.count for slot, window in found.items()}


def test_events_are_counted_in_their_windows(fake_redis: Redis) -> None:
    for event in (served(), served(), served(ago=60), served(version=2), failed()):
        bus.append(fake_redis, event)
    assert windows(count_all(fake_redis)) == {
        Slot("m", 1, MINUTE - timedelta(minutes=1)): 1,
        Slot("m", 1, MINUTE): 2,
        Slot("m", 2, MINUTE): 1,
    }


def test_counting_goes_on_where_another_process_stopped(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())
    count_all(fake_redis)
    bus.append(fake_redis, served())
    assert windows(count_all(fake_redis)) == {Slot("m", 1, MINUTE): 2}


def test_a_window_lies_in_redis_as_readable_text(fake_redis: Redis) -> None:
    bus.append(fake_redis, served(1.5, rows=2))
    count_all(fake_redis)
    assert fake_redis.hgetall(WINDOW) == {
        "count": "1",
        "rows": "2",
        "errors": "0",
        "sum_ms": "1.5",
        "min_ms": "1.5",
        "max_ms": "1.5",
        "sketch": "40021:1",
    }


def test_a_window_expires_with_the_retention(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())
    begin = int(time.time())
    count_all(fake_redis)
    left = (MINUTE + timedelta(hours=48) - NOW).total_seconds()
    assert begin + left <= fake_redis.expiretime(WINDOW) <= time.time() + left


def test_the_index_of_windows_is_trimmed_with_them(fake_redis: Redis) -> None:
    old = {"1:2026-11-20T00:00Z": (MINUTE - timedelta(hours=49)).timestamp()}
    fake_redis.zadd(keys.monitor_minutes("m"), old)
    bus.append(fake_redis, served())
    count_all(fake_redis)
    assert fake_redis.zrange(keys.monitor_minutes("m"), 0, -1) == ["1:2026-11-23T23:47Z"]


def test_the_index_expires_when_nothing_is_added_any_more(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())
    count_all(fake_redis)
    assert 0 < fake_redis.ttl(keys.monitor_minutes("m")) <= 48 * 3600


def test_a_window_that_expired_is_left_out(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())
    aggregates = count_all(fake_redis)
    fake_redis.delete(WINDOW)
    assert windows(aggregates) == {}


def test_every_entry_has_its_outcome_counted(fake_redis: Redis) -> None:
    for event in (served(), served(float("nan")), served(ago=50 * 3600)):
        bus.append(fake_redis, event)
    assert count_all(fake_redis).progress().outcomes == {COUNTED: 1, REJECTED: 1, EXPIRED: 1}


def test_entries_trimmed_before_they_were_read_are_counted_as_lost(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())
    count_all(fake_redis)
    for _ in range(10):
        bus.append(fake_redis, served())
    fake_redis.xtrim(STREAM, maxlen=4, approximate=False)
    assert count_all(fake_redis).progress().outcomes == {COUNTED: 5, LOST: 6}


def test_of_two_that_count_the_same_entries_the_second_is_refused(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())

    class Slow(Aggregates):
        """Lets another monitor count between its reading and its writing."""

        def _commit(self, *arguments: object) -> None:
            count_all(fake_redis)
            super()._commit(*arguments)  # type: ignore[arg-type]

    with pytest.raises(WatchError):
        Slow(fake_redis, timedelta(hours=48), clock=lambda: NOW).advance(0.001)
    assert windows(aggregates_of(fake_redis)) == {Slot("m", 1, MINUTE): 1}


def test_a_window_moved_between_watch_and_exec_refuses_the_write(fake_redis: Redis) -> None:
    bus.append(fake_redis, served())

    class Slower(Aggregates):
        """Lets another monitor count after it has looked at the position."""

        def _load(self, slots: list[Slot]) -> dict[Slot, object]:  # type: ignore[override]
            found = super()._load(slots)
            count_all(fake_redis)
            return found  # type: ignore[return-value]

    with pytest.raises(WatchError):
        Slower(fake_redis, timedelta(hours=48), clock=lambda: NOW).advance(0.001)
    assert windows(aggregates_of(fake_redis)) == {Slot("m", 1, MINUTE): 1}


def test_a_batch_is_bounded(fake_redis: Redis) -> None:
    for _ in range(ENTRIES_PER_TRANSACTION + 1):
        bus.append(fake_redis, served())
    aggregates = aggregates_of(fake_redis)
    assert [aggregates.advance(0.001)[0] for _ in range(3)] == [ENTRIES_PER_TRANSACTION, 1, 0]


def test_nothing_is_written_while_nothing_happens(fake_redis: Redis) -> None:
    assert aggregates_of(fake_redis).advance(0.001) == (0, "")
    assert fake_redis.keys() == []


def test_the_lag_is_what_waits_to_be_counted(fake_redis: Redis) -> None:
    aggregates = aggregates_of(fake_redis)
    assert aggregates.lag() == Lag(0.0, 0)
    seconds, _ = fake_redis.time()
    for number in range(3):
        fake_redis.xadd(STREAM, served().to_fields(), id=f"{(seconds - 40) * 1000}-{number}")  # type: ignore[arg-type]
    lag = aggregates.lag()
    assert lag.entries == 3
    assert 40 <= lag.seconds < 45
    count_all(fake_redis)
    assert aggregates.lag() == Lag(0.0, 0)


@pytest.mark.redis
def test_real_redis_tells_how_many_were_lost(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    append_live(redis, 10)
    while Aggregates(redis, timedelta(hours=48)).advance(0.001)[0]:
        pass
    append_live(redis, 1000)
    redis.xtrim(STREAM, maxlen=300, approximate=True)
    remaining = redis.xlen(STREAM)
    while Aggregates(redis, timedelta(hours=48)).advance(0.001)[0]:
        pass
    outcomes = Aggregates(redis, timedelta(hours=48)).progress().outcomes
    assert outcomes == {COUNTED: 10 + remaining, LOST: 1000 - remaining}


@pytest.mark.redis
def test_a_broken_byte_in_an_entry_stops_nothing(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    redis.xadd(STREAM, {"type": b"\xff\xfe"})
    bus.append(redis, served())
    assert count_all(redis).progress().outcomes[COUNTED] == 1


@pytest.mark.redis
def test_however_many_monitors_run_each_event_counts_once(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    stop = Flag()

    def monitor() -> None:
        own = Aggregates(real_redis.client(), timedelta(hours=48))
        while not stop.is_set():
            try:
                own.advance(0.05)
            except WatchError:
                continue

    threads = [Thread(target=monitor) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        append_live(redis, 30)
    eventually(lambda: counted(redis) >= 3000, within=20, saying="everything is counted")
    stop.set()
    for thread in threads:
        thread.join(timeout=10)
    assert counted(redis) == 3000
