"""The monitor as a real process over a real Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import httpx
import pytest

from tests.conftest import ROOT, RedisServer
from tests.eventually import eventually
from tests.monitor.conftest import StartMonitor
from tests.monitor.events import append_live, counted, train

pytestmark = pytest.mark.redis


def test_a_killed_monitor_goes_on_without_losing_or_doubling_an_event(
    real_redis: RedisServer, start_monitor: StartMonitor
) -> None:
    redis = real_redis.client()
    monitor = start_monitor()
    appended = 0
    for _ in range(20):
        append_live(redis, 200)
        appended += 200
    eventually(lambda: counted(redis) > 0, within=20, saying="it has begun to count")
    monitor.kill()
    append_live(redis, 500)
    monitor.start()
    eventually(lambda: counted(redis) >= appended + 500, within=20, saying="it has counted all")
    assert counted(redis) == appended + 500


def test_several_workers_count_each_event_once_and_serve_the_same_metrics(
    real_redis: RedisServer, start_monitor: StartMonitor
) -> None:
    redis = real_redis.client()
    monitor = start_monitor(workers=2)
    monitor.until_ready()
    for _ in range(30):
        append_live(redis, 50)
        time.sleep(0.02)
    eventually(lambda: counted(redis) >= 1500, within=20, saying="all are counted")
    for _ in range(6):  # whichever worker answers
        lines = httpx.get(f"{monitor.url}/metrics").text.splitlines()
        assert 'modelmill_monitor_events_total{outcome="counted"} 1500.0' in lines
    assert counted(redis) == 1500


def test_it_stops_in_seconds_though_somebody_follows_its_events(
    real_redis: RedisServer, start_monitor: StartMonitor
) -> None:
    train(real_redis.client(), "m")
    monitor = start_monitor()
    monitor.until_ready()
    headers = {"Accept": "text/event-stream"}
    with httpx.stream("GET", f"{monitor.url}/events?count=1", headers=headers) as answer:
        lines = answer.iter_lines()  # kept, so that the connection stays open
        while next(lines) != "event: model.promoted":
            pass
        assert monitor.process is not None
        monitor.process.terminate()
        monitor.process.wait(timeout=20)


def test_a_setting_that_cannot_be_used_stops_the_start_with_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.monitor.main"],
        cwd=ROOT,
        env=os.environ | {"MODELMILL_WINDOW_RETENTION": "for ever"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("MODELMILL_WINDOW_RETENTION='for ever'")
