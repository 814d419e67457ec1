from __future__ import annotations

from collections.abc import Iterator
from threading import Event as Flag
from threading import Thread

import pytest

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import Event, RunStarted
from tests.conftest import RedisServer
from tests.eventually import eventually

STREAM = keys.EVENTS_MODELS


def started(run: str) -> RunStarted:
    return RunStarted(model="m", run=run, trigger="manual")


def runs(entries: list[bus.Entry]) -> list[str]:
    return [event.run for _, event in entries if isinstance(event, RunStarted)]


def test_the_position_in_an_empty_stream_hears_all_that_comes(fake_redis: Redis) -> None:
    position = bus.last_position(fake_redis, STREAM)
    bus.append(fake_redis, started("a"))
    assert runs(bus.read(fake_redis, STREAM, position, wait=0.01)[1]) == ["a"]


def test_the_last_position_hears_only_what_comes_later(fake_redis: Redis) -> None:
    bus.append(fake_redis, started("a"))
    position = bus.last_position(fake_redis, STREAM)
    bus.append(fake_redis, started("b"))
    assert runs(bus.read(fake_redis, STREAM, position, wait=0.01)[1]) == ["b"]


def test_reading_goes_on_where_it_stopped(fake_redis: Redis) -> None:
    for run in "abc":
        bus.append(fake_redis, started(run))
    position, first = bus.read(fake_redis, STREAM, "0-0", wait=0.01, count=2)
    _, second = bus.read(fake_redis, STREAM, position, wait=0.01)
    assert (runs(first), runs(second)) == (["a", "b"], ["c"])


def test_nothing_new_leaves_the_position(fake_redis: Redis) -> None:
    bus.append(fake_redis, started("a"))
    position = bus.last_position(fake_redis, STREAM)
    assert bus.read(fake_redis, STREAM, position, wait=0.01) == (position, [])


def test_the_newest_events_are_read_oldest_first(fake_redis: Redis) -> None:
    for run in "abc":
        bus.append(fake_redis, started(run))
    assert runs(bus.newest(fake_redis, STREAM, 2)) == ["b", "c"]


@pytest.mark.parametrize(
    "stranger", [{"type": "model.exploded"}, {"type": "run.started", "model": "m"}, {"a": "b"}], ids=str
)
def test_entries_that_cannot_be_read_are_passed_by(stranger: dict[str, str], fake_redis: Redis) -> None:
    fake_redis.xadd(STREAM, stranger)
    bus.append(fake_redis, started("a"))
    position, entries = bus.read(fake_redis, STREAM, "0-0", wait=0.01)
    assert runs(entries) == ["a"]
    assert position == bus.last_position(fake_redis, STREAM)


def test_a_stream_of_nothing_but_strangers_moves_the_position(fake_redis: Redis) -> None:
    fake_redis.xadd(STREAM, {"type": "model.exploded"})
    assert bus.read(fake_redis, STREAM, "0-0", wait=0.01) == (bus.last_position(fake_redis, STREAM), [])


@pytest.mark.redis
def test_a_stream_is_bounded(real_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "MAX_LENGTH", 1000)
    redis = real_redis.client()
    for number in range(3000):
        bus.append(redis, started(str(number)))
    assert redis.xlen(STREAM) < 1200  # Redis trims whole nodes of 100 entries


def test_a_batch_that_is_sent_again_is_appended_once(fake_redis: Redis) -> None:
    events: list[Event] = [started("a"), started("b")]
    counts = [bus.append_once(fake_redis, STREAM, events, marker="marker", batch=1) for _ in range(2)]
    assert counts == [2, 0]
    assert runs(bus.newest(fake_redis, STREAM, 10)) == ["a", "b"]


def test_the_next_batch_is_appended(fake_redis: Redis) -> None:
    for batch in (1, 2):
        bus.append_once(fake_redis, STREAM, [started(str(batch))], marker="marker", batch=batch)
    assert runs(bus.newest(fake_redis, STREAM, 10)) == ["1", "2"]


def test_what_was_appended_in_batches_is_counted_whatever_is_trimmed(fake_redis: Redis) -> None:
    for batch in (1, 2, 2):
        bus.append_once(fake_redis, STREAM, [started("a"), started("b")], marker="marker", batch=batch)
    fake_redis.xtrim(STREAM, maxlen=1, approximate=False)
    assert fake_redis.get(keys.entries_added(STREAM)) == "4"


class Follower(Thread):
    """Follows `STREAM` from its beginning; `heard` are the runs, `batches` counts also the empty batches."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(daemon=True)
        self.redis = redis
        self.stop = Flag()
        self.heard: list[str] = []
        self.batches = 0

    def run(self) -> None:
        for entries in bus.follow(self.redis, STREAM, "0-0", self.stop, wait=0.05):
            self.heard.extend(runs(entries))
            self.batches += 1


@pytest.fixture
def follower(real_redis: RedisServer) -> Iterator[Follower]:
    follower = Follower(real_redis.client())
    follower.start()
    yield follower
    follower.stop.set()
    follower.join(timeout=5)


@pytest.mark.redis
def test_a_follower_hears_events_as_they_come(real_redis: RedisServer, follower: Follower) -> None:
    bus.append(real_redis.client(), started("a"))
    eventually(lambda: follower.heard == ["a"], within=5, saying="the event is heard")


@pytest.mark.redis
def test_a_follower_also_hears_that_nothing_came(follower: Follower) -> None:
    eventually(lambda: follower.batches > 2, within=5, saying="empty batches come")


@pytest.mark.redis
def test_a_follower_ends_when_told(follower: Follower) -> None:
    follower.stop.set()
    follower.join(timeout=5)
    assert not follower.is_alive()


@pytest.mark.redis
def test_a_follower_outlives_redis_and_misses_nothing(real_redis: RedisServer, follower: Follower) -> None:
    bus.append(real_redis.client(), started("before"))
    eventually(lambda: follower.heard == ["before"], within=5, saying="the first event is heard")
    real_redis.stop()
    real_redis.start()
    bus.append(real_redis.client(), started("after"))
    eventually(lambda: follower.heard == ["before", "after"], within=10, saying="the event after it is heard, once")
