"""A model's latency over a window, by version and minute by minute."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from modelmill.errors import InvalidRequest
from modelmill.state import bus
from modelmill.state.connections import Redis
from modelmill.state.events import Event
from services.monitor.latency import Report, parse_window, report
from services.monitor.windows import minute_of
from tests.monitor.events import NOW, count_all, failed, served

RETENTION = timedelta(hours=48)
MINUTE = timedelta(minutes=1)


def of(redis: Redis, *events: Event, window: timedelta = 15 * MINUTE) -> Report:
    for event in events:
        bus.append(redis, event)
    return report(count_all(redis), "m", window)


def test_a_window_holds_its_whole_minutes_and_the_present_one(fake_redis: Redis) -> None:
    found = of(fake_redis, window=2 * MINUTE)
    assert (found.start, found.end) == (datetime.fromisoformat("2026-11-23T23:45:00Z"), NOW)


def test_only_events_within_the_window_are_in_it(fake_redis: Redis) -> None:
    found = of(fake_redis, served(1.0), served(2.0, ago=120), served(4.0, ago=180), window=2 * MINUTE)
    assert (found.overall().count, found.overall().max) == (2, 2.0)


def test_only_events_of_the_model_are_in_it(fake_redis: Redis) -> None:
    assert of(fake_redis, served(), served(model="other")).overall().count == 1


def test_versions_have_their_own_figures_and_the_newest_is_first(fake_redis: Redis) -> None:
    versions = of(fake_redis, served(1.0, version=2), served(3.0, version=10), failed(version=10)).versions()
    assert [(v, s.count, s.errors, s.max) for v, s in versions.items()] == [(10, 1, 1, 3.0), (2, 1, 0, 1.0)]


def test_throughput_is_over_the_whole_window(fake_redis: Redis) -> None:
    found = of(fake_redis, served(), served(), served(), window=2 * MINUTE)
    assert found.overall().throughput == 3 / 150


def test_every_minute_is_there_though_nothing_happened_in_it(fake_redis: Redis) -> None:
    minutes = of(fake_redis, served(ago=60), served(), window=3 * MINUTE).minutes()
    assert [summary.count for summary in minutes.values()] == [0, 0, 1, 1]
    assert next(iter(minutes)) == minute_of(NOW) - 3 * MINUTE


def test_the_present_minute_is_as_long_as_it_has_lasted(fake_redis: Redis) -> None:
    minutes = of(fake_redis, *[served()] * 60).minutes()
    assert minutes[minute_of(NOW)].throughput == 60 / 30


def test_the_last_part_of_a_report_is_a_report(fake_redis: Redis) -> None:
    last = of(fake_redis, served(), served(ago=60), served(ago=120)).last(MINUTE)
    assert (last.overall().count, last.start) == (2, minute_of(NOW) - MINUTE)


@pytest.mark.parametrize(
    "text, minutes", [("1m", 1), ("120s", 2), ("15m", 15), ("2h", 120), ("1d", 1440), ("48h", 2880)]
)
def test_a_window_is_minutes_hours_or_days(text: str, minutes: int) -> None:
    assert parse_window(text, RETENTION) == minutes * MINUTE


@pytest.mark.parametrize(
    "text", ["", "15", "m", "0m", "-1m", "1.5h", "15 m", "15M", "30s", "90s", "1m1h", "٣m", "9999999d"]
)
def test_anything_else_is_refused_with_its_value_and_what_was_expected(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected minutes, hours or days") as refusal:
        parse_window(text, RETENTION)
    assert repr(text) in refusal.value.detail


@pytest.mark.parametrize("text", ["49h", "3d", "999999d"])
def test_a_window_longer_than_the_retention_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"expected at most 48h \(MODELMILL_WINDOW_RETENTION"):
        parse_window(text, RETENTION)
