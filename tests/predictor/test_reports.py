"""Reports reach the stream exactly once, or are counted as dropped."""

from __future__ import annotations

import pytest
import redis.exceptions

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import Event, PredictionFailed
from services.predictor import reports
from services.predictor import reports as reports_module
from services.predictor.reports import BATCH_REPORTS, BATCH_ROWS, Report, Reports
from tests.conftest import RedisServer
from tests.eventually import eventually


def event(number: int) -> Event:
    return PredictionFailed(model="m", version=1, latency_ms=1.0, status=500, error=str(number))


def report(number: int, rows: int = 1) -> Report:
    return Report(rows, lambda: event(number))


def reported(redis: Redis) -> list[str]:
    events = bus.newest(redis, keys.EVENTS_PREDICTIONS, 100_000)
    return [one.error for _, one in events if isinstance(one, PredictionFailed)]


def dropped() -> float:
    return float(reports.DROPPED._value.get())


def test_reports_are_appended_in_their_order(fake_redis: Redis) -> None:
    reports = Reports(fake_redis, bound=1000)
    for number in range(3 * BATCH_REPORTS + 1):
        reports.add(report(number))
    reports.flush()
    assert reported(fake_redis) == [str(number) for number in range(3 * BATCH_REPORTS + 1)]


def test_an_event_is_made_when_it_is_appended_not_when_it_is_added(fake_redis: Redis) -> None:
    made: list[int] = []

    def make() -> Event:
        made.append(1)
        return event(1)

    reports = Reports(fake_redis, bound=10)
    reports.add(Report(1, make))
    assert not made
    reports.flush()
    assert made


def test_what_finds_the_buffer_full_is_dropped_and_counted(fake_redis: Redis) -> None:
    reports, before = Reports(fake_redis, bound=3), dropped()
    for number in range(5):
        reports.add(report(number))
    reports.flush()
    assert reported(fake_redis) == ["0", "1", "2"]
    assert dropped() == before + 2


def test_rows_are_what_is_bounded_and_counted(fake_redis: Redis) -> None:
    reports, before = Reports(fake_redis, bound=3), dropped()
    reports.add(report(0, rows=2))
    reports.add(report(1, rows=2))
    reports.add(report(2, rows=2))
    reports.flush()
    assert reported(fake_redis) == ["0", "1"]
    assert dropped() == before + 2


def test_the_buffer_has_room_again_after_a_flush(fake_redis: Redis) -> None:
    reports = Reports(fake_redis, bound=1)
    for number in range(3):
        reports.add(report(number))
        reports.flush()
    assert reported(fake_redis) == ["0", "1", "2"]


def test_many_rows_make_a_batch_of_their_own(fake_redis: Redis) -> None:
    reports = Reports(fake_redis, bound=10 * BATCH_ROWS)
    reports.add(report(0, rows=BATCH_ROWS))
    reports.add(report(1))
    assert len(reports._next_batch()) == 1


def test_a_batch_that_is_sent_again_is_appended_once(fake_redis: Redis) -> None:
    for _ in range(2):
        bus.append_once(fake_redis, keys.EVENTS_PREDICTIONS, [event(1)], marker="marker", batch=1)
    bus.append_once(fake_redis, keys.EVENTS_PREDICTIONS, [event(2)], marker="marker", batch=2)
    assert reported(fake_redis) == ["1", "2"]


def test_a_batch_whose_answer_was_lost_is_appended_once(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    append = bus.append_once

    def append_and_lose_the_answer(*args: object, **named: object) -> int:
        append(*args, **named)  # type: ignore[arg-type]
        raise redis.exceptions.TimeoutError("lost")

    reports = Reports(fake_redis, bound=10)
    reports.add(report(1))
    monkeypatch.setattr(bus, "append_once", append_and_lose_the_answer)
    with pytest.raises(redis.exceptions.TimeoutError):
        reports.flush()
    monkeypatch.setattr(bus, "append_once", append)
    reports.add(report(2))
    reports.flush()
    assert reported(fake_redis) == ["1", "2"]


def test_markers_do_not_stay_for_ever(fake_redis: Redis) -> None:
    reports = Reports(fake_redis, bound=10)
    reports.add(report(1))
    reports.flush()
    (marker,) = fake_redis.keys("predictor:*:batch")
    assert 0 < fake_redis.ttl(marker) <= 86_400


def test_the_thread_appends_soon(fake_redis: Redis) -> None:
    reports = Reports(fake_redis, bound=10)
    thread = reports.start()
    reports.add(report(1))
    eventually(lambda: reported(fake_redis) == ["1"], within=2, saying="the report is in the stream")
    reports.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_the_thread_appends_what_is_left_before_it_ends(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "INTERVAL", 60.0)
    reports = Reports(fake_redis, bound=1000)
    thread = reports.start()
    for number in range(100):
        reports.add(report(number))
    reports.stop()
    thread.join(timeout=5)
    assert len(reported(fake_redis)) == 100


def test_a_report_that_cannot_be_made_is_counted_and_does_not_stop_the_thread(fake_redis: Redis) -> None:
    def broken() -> Event:
        raise ValueError("broken")

    reports, before = Reports(fake_redis, bound=10), dropped()
    thread = reports.start()
    reports.add(Report(4, broken))
    eventually(lambda: dropped() == before + 4, within=2, saying="the rows are counted")
    reports.add(report(1))
    eventually(lambda: reported(fake_redis) == ["1"], within=2, saying="the next report is in the stream")
    reports.stop()
    thread.join(timeout=5)


@pytest.mark.redis
def test_reports_wait_while_redis_is_away(real_redis: RedisServer) -> None:
    reports, before = Reports(real_redis.client(), bound=50), dropped()
    thread = reports.start()
    real_redis.stop()
    for number in range(60):
        reports.add(report(number))
    assert dropped() == pytest.approx(before + 10, abs=BATCH_REPORTS)  # a batch may be under way already
    kept = 60 - int(dropped() - before)
    real_redis.start()
    client = real_redis.client()
    eventually(lambda: len(reported(client)) == kept, within=10, saying="what was kept is in the stream")
    assert reported(client) == [str(number) for number in range(kept)]
    reports.stop()
    thread.join(timeout=5)


@pytest.mark.redis
def test_what_a_redis_that_stays_away_does_not_take_is_counted_at_the_end(real_redis: RedisServer) -> None:
    reports, before = Reports(real_redis.client(), bound=50), dropped()
    real_redis.stop()
    for number in range(5):
        reports.add(report(number))
    thread = reports.start()
    reports.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert dropped() == before + 5
