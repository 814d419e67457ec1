"""The counting thread goes on whatever happens, and says when it does not keep up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from threading import Event as Flag

import pytest

from modelmill.errors import Unavailable
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from services.monitor.aggregates import STREAM, Aggregates, Follower
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.monitor.events import aggregates_of, append_live, counted, served

WINDOW = keys.monitor_window("m", 1, "2026-11-23T23:47Z")


@pytest.fixture
def stop() -> Iterator[Flag]:
    flag = Flag()
    yield flag
    flag.set()


def started(aggregates: Aggregates, stop: Flag) -> Follower:
    follower = Follower(aggregates, stop, wait=0.05)
    follower.thread.start()
    return follower


def test_events_are_counted_as_they_come(fake_redis: Redis, stop: Flag) -> None:
    aggregates = aggregates_of(fake_redis)
    started(aggregates, stop)
    for number in (1, 2):
        bus.append(fake_redis, served())
        eventually(lambda n=number: aggregates.progress().entries == n, within=5, saying="it is counted")


def test_it_ends_when_it_is_told_to(fake_redis: Redis, stop: Flag) -> None:
    follower = started(aggregates_of(fake_redis), stop)
    stop.set()
    follower.thread.join(timeout=5)
    assert not follower.thread.is_alive()


def test_it_is_ready_while_it_runs(fake_redis: Redis, stop: Flag) -> None:
    started(aggregates_of(fake_redis), stop).check()


def test_it_is_not_ready_when_the_thread_does_not_run(fake_redis: Redis) -> None:
    with pytest.raises(Unavailable, match="does not run"):
        Follower(aggregates_of(fake_redis), Flag(), wait=0.05).check()


def test_it_is_not_ready_when_it_is_far_behind(fake_redis: Redis, stop: Flag) -> None:
    fake_redis.set(WINDOW, "a value of another type, so that this minute cannot be counted")
    fake_redis.xadd(STREAM, served().to_fields(), id="1-0")  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="s behind; expected at most 30"):
        started(aggregates_of(fake_redis), stop).check()


def test_what_fails_is_tried_again(fake_redis: Redis, stop: Flag, caplog: pytest.LogCaptureFixture) -> None:
    fake_redis.set(WINDOW, "a value of another type, so that this minute cannot be counted")
    bus.append(fake_redis, served())
    aggregates = aggregates_of(fake_redis)
    started(aggregates, stop)
    eventually(lambda: "cannot count" in caplog.text, within=5, saying="it says that it cannot count")
    fake_redis.delete(WINDOW)
    eventually(lambda: aggregates.progress().entries == 1, within=5, saying="it is counted")


def test_a_rejected_event_is_logged_with_its_reason(
    fake_redis: Redis, stop: Flag, caplog: pytest.LogCaptureFixture
) -> None:
    bus.append(fake_redis, served(float("inf")))
    started(aggregates_of(fake_redis), stop)
    eventually(lambda: "latency_ms=inf" in caplog.text, within=5, saying="the reason is logged")


@pytest.mark.redis
def test_redis_may_go_and_come_back(real_redis: RedisServer, stop: Flag, caplog: pytest.LogCaptureFixture) -> None:
    redis = real_redis.client()
    follower = started(Aggregates(real_redis.client(), timedelta(hours=48)), stop)
    append_live(redis, 100)
    eventually(lambda: counted(redis) == 100, within=5, saying="the first are counted")
    real_redis.stop()
    eventually(lambda: "cannot count" in caplog.text, within=5, saying="it notices that Redis is away")
    time.sleep(1.5)  # long enough for a second try
    real_redis.start()
    append_live(redis, 100)
    eventually(lambda: counted(redis) == 200, within=10, saying="it goes on, and counts none twice")
    assert caplog.text.count("cannot count") == 1
    follower.check()
