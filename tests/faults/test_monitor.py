"""Each event counts exactly once, however often monitors and Redis are killed while events come in."""

from __future__ import annotations

import random
import time
from threading import Event as Flag
from threading import Thread

import pytest

from modelmill.state import keys
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.monitor.conftest import StartMonitor
from tests.monitor.conftest import start_monitor as start_monitor
from tests.monitor.events import append_live, counted

pytestmark = [pytest.mark.faults, pytest.mark.redis]

BATCH = 25


class Predictor(Thread):
    """Appends batches of events until `stop` is set; `appended` is how many it is sure of."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(daemon=True)
        self.redis = server.client()
        self.stop = Flag()
        self.appended = 0

    def run(self) -> None:
        while not self.stop.is_set():
            append_live(self.redis, BATCH)
            self.appended += BATCH
            self.stop.wait(0.01)

    def finish(self) -> int:
        self.stop.set()
        self.join(timeout=10)
        return self.appended


def settled(server: RedisServer, expected: int) -> int:
    """What is counted once `expected` has been reached and a moment has passed in which more could follow."""
    redis = server.client()
    eventually(lambda: counted(redis) >= expected, within=60, saying=f"all {expected} events are counted")
    time.sleep(1)
    return counted(redis)


@pytest.mark.timeout(300)
def test_a_monitor_killed_again_and_again_counts_each_event_once(
    real_redis: RedisServer, start_monitor: StartMonitor
) -> None:
    monitor = start_monitor()
    predictor = Predictor(real_redis)
    predictor.start()
    for _ in range(12):
        before = counted(real_redis.client())
        eventually(lambda b=before: counted(real_redis.client()) > b, within=30, saying="the monitor counts")
        time.sleep(random.uniform(0, 0.3))
        monitor.kill()
        monitor.start()
    appended = predictor.finish()
    assert settled(real_redis, appended) == appended


@pytest.mark.timeout(300)
def test_two_monitors_of_which_one_is_killed_again_and_again_count_each_event_once(
    real_redis: RedisServer, start_monitor: StartMonitor
) -> None:
    lasting, killed = start_monitor(), start_monitor(workers=2)
    lasting.until_ready()
    predictor = Predictor(real_redis)
    predictor.start()
    for _ in range(6):
        killed.until_ready()
        time.sleep(random.uniform(0, 1.5))
        killed.kill()
        killed.start()
    appended = predictor.finish()
    assert settled(real_redis, appended) == appended


@pytest.mark.timeout(300)
def test_a_redis_killed_again_and_again_loses_the_count_of_no_event_that_it_kept(
    real_redis: RedisServer, start_monitor: StartMonitor
) -> None:
    monitor = start_monitor()
    monitor.until_ready()
    for _ in range(5):
        for _ in range(20):
            append_live(real_redis.client(), BATCH)
        time.sleep(random.uniform(0, 0.1))
        real_redis.stop(kill=True)
        time.sleep(random.uniform(0, 1.5))
        real_redis.start()
    kept = real_redis.client().xlen(keys.EVENTS_PREDICTIONS)
    assert 0 < kept <= 5 * 20 * BATCH
    assert settled(real_redis, kept) == kept
    monitor.until_ready()


@pytest.mark.timeout(300)
def test_a_monitor_that_was_away_counts_what_it_missed(real_redis: RedisServer, start_monitor: StartMonitor) -> None:
    monitor = start_monitor()
    monitor.until_ready()
    monitor.kill()
    for _ in range(40):
        append_live(real_redis.client(), 500)
    monitor.start()
    assert settled(real_redis, 20_000) == 20_000
