"""Due slots are enqueued once, whatever else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import DriftDetected, Event, QualityDegraded, RowsIngested
from modelmill.state.registry import Registry
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.recipes import Recipes
from services.trainer.triggers.decisions import GRACE
from services.trainer.triggers.scheduler import Scheduler, schedules
from tests.conftest import USERS_MILL, RedisServer
from tests.eventually import eventually

START = datetime(2026, 5, 4, 12, 0, 0, 500_000, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def counted(outcome: str, trigger: str = "every") -> float:
    labels = {"model": "user_target", "trigger": trigger, "outcome": outcome}
    return REGISTRY.get_sample_value("modelmill_triggers_total", labels) or 0.0


def scheduling(text: Redis, queue: TrainingQueue, mill: Path = USERS_MILL) -> Scheduler:
    """One scheduler of its own, as each trainer process has."""
    return Scheduler(Recipes(text, mill), queue)


def declaring(folder: Path, train: str) -> Path:
    """The users example with other triggers."""
    mill = folder / "mill.py"
    text = USERS_MILL.read_text().replace("train=every(seconds=60)", f"train={train}")
    mill.write_text("from modelmill import after, cron, on\n" + text)
    return mill


@pytest.fixture
def scheduler(fake_redis: Redis, fake_queue: TrainingQueue) -> Scheduler:
    """A scheduler of the users example (every minute), that has looked at 12:00."""
    scheduler = scheduling(fake_redis, fake_queue)
    scheduler.look(START)
    return scheduler


def test_the_first_look_enqueues_nothing(scheduler: Scheduler) -> None:
    assert scheduler.queue.jobs() == []


def test_a_due_slot_is_enqueued_once_and_says_what_triggered_it(scheduler: Scheduler) -> None:
    for second in range(60, 65):
        scheduler.look(START + timedelta(seconds=second))
    assert [(job.model, job.trigger, job.by) for job in scheduler.queue.jobs()] == [
        ("user_target", "every", "every 60 s, slot 2026-05-04T12:01:00Z")
    ]


def test_each_slot_is_enqueued_once_its_training_has_ended(scheduler: Scheduler) -> None:
    before = counted("fired")
    for minute in range(1, 4):
        scheduler.look(START + minute * MINUTE)
        scheduler.queue.rq.empty()
    assert counted("fired") - before == 3


def test_a_restart_neither_doubles_nor_loses_a_slot(scheduler: Scheduler) -> None:
    scheduler.look(START + MINUTE)
    scheduler.queue.rq.empty()
    again = Scheduler(scheduler.recipes, scheduler.queue)
    again.look(START + MINUTE + timedelta(seconds=30))
    assert again.queue.jobs() == []
    again.look(START + 2 * MINUTE + timedelta(seconds=20))
    assert len(again.queue.jobs()) == 1


def test_a_slot_noticed_too_late_is_skipped_and_counted(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    nightly = declaring(tmp_path, 'cron("0 3 * * *")')
    scheduler, before = scheduling(fake_redis, fake_queue, nightly), counted("skipped_late", "cron")
    three = datetime(2026, 5, 4, 3, tzinfo=UTC)
    scheduler.look(three - MINUTE)
    scheduler.look(three + GRACE + timedelta(seconds=1))
    assert (fake_queue.jobs(), counted("skipped_late", "cron") - before) == ([], 1)
    scheduler.look(three + timedelta(days=1) + GRACE)
    assert len(fake_queue.jobs()) == 1


def test_trainings_of_a_model_do_not_pile_up(scheduler: Scheduler) -> None:
    before = counted("skipped_busy")
    for minute in range(1, 4):
        scheduler.look(START + minute * MINUTE)
    assert (len(scheduler.queue.jobs()), counted("skipped_busy") - before) == (1, 2)


def test_a_full_queue_skips_the_slot(scheduler: Scheduler) -> None:
    before = counted("skipped_full")
    for _ in range(3):
        scheduler.queue.enqueue("other")
    scheduler.look(START + MINUTE)
    assert (len(scheduler.queue.jobs()), counted("skipped_full") - before) == (3, 1)


def test_a_crash_before_the_transaction_leaves_the_slot_to_the_next(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduler.queue, "enqueue", crash)
    with pytest.raises(KeyboardInterrupt):
        scheduler.look(START + MINUTE)
    monkeypatch.undo()
    scheduler.look(START + MINUTE)
    assert len(scheduler.queue.jobs()) == 1


def told(redis: Redis, *events: Event) -> None:
    for event in events:
        bus.append(redis, event)


def rows(accepted: int, source: str = "users") -> RowsIngested:
    return RowsIngested(table=source, accepted=accepted, rejected=0, failed_features=0)


def ended(queue: TrainingQueue) -> list[tuple[str, str]]:
    """Trigger and cause of the trainings that waited, oldest first; they have ended now."""
    jobs = [(job.trigger, job.by) for job in reversed(queue.jobs())]
    queue.rq.empty()
    return jobs


def test_accepted_rows_trigger_a_training_and_are_counted_across_restarts(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    mill = declaring(tmp_path, "after(rows=10, cooldown=None)")
    told(fake_redis, rows(10))  # before there was such a trigger
    scheduling(fake_redis, fake_queue, mill).look(START)
    told(fake_redis, rows(4), rows(5), rows(99, "others"))
    scheduling(fake_redis, fake_queue, mill).look(START)
    scheduling(fake_redis, fake_queue, mill).look(START)
    assert ended(fake_queue) == []
    told(fake_redis, rows(2))
    for _ in range(3):
        scheduling(fake_redis, fake_queue, mill).look(START)
    assert ended(fake_queue) == [("after", "after 10 rows: 11 came")]


def test_rows_that_come_during_a_training_trigger_one_when_it_has_ended(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    scheduler = scheduling(fake_redis, fake_queue, declaring(tmp_path, "after(rows=10, cooldown=None)"))
    scheduler.look(START)
    fake_queue.enqueue("user_target")
    for _ in range(5):
        told(fake_redis, rows(10))
        scheduler.look(START)
    assert ended(fake_queue) == [("manual", "")]
    for _ in range(3):
        scheduler.look(START)
    assert ended(fake_queue) == [("after", "after 10 rows: 50 came")]


def test_a_backlog_of_a_stream_is_read_in_batches_and_what_was_trimmed_is_counted(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    scheduler = scheduling(fake_redis, fake_queue, declaring(tmp_path, "after(rows=100_000)"))
    told(fake_redis, rows(1))
    scheduler.look(START)
    told(fake_redis, *(rows(1) for _ in range(2500)))
    fake_redis.xtrim(keys.EVENTS_FEATURES, maxlen=2200, approximate=False)
    scheduler.look(START)
    (view,) = schedules(fake_redis, scheduler.recipes.definitions, START)
    assert (view["rows"], view["lost"]) == (2200, 300)
    scheduler.look(START)
    (view,) = schedules(fake_redis, scheduler.recipes.definitions, START)
    assert (view["rows"], view["lost"]) == (2200, 300)


def test_a_full_queue_lets_rows_wait(fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path) -> None:
    scheduler = scheduling(fake_redis, fake_queue, declaring(tmp_path, "after(rows=10)"))
    scheduler.look(START)
    for _ in range(3):
        fake_queue.enqueue("other")
    told(fake_redis, rows(10))
    before = counted("waits_full", "after")
    for _ in range(2):
        scheduler.look(START)
    assert counted("waits_full", "after") - before == 1
    ended(fake_queue)
    scheduler.look(START)
    assert ended(fake_queue) == [("after", "after 10 rows: 10 came")]


def test_an_event_triggers_one_training_however_often_schedulers_are_restarted(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    mill = declaring(tmp_path, '[on("drift.detected"), on("quality.degraded")]')
    told(fake_redis, DriftDetected(model="user_target"))  # before there was such a trigger
    scheduling(fake_redis, fake_queue, mill).look(START)
    drift, quality = DriftDetected(model="user_target"), QualityDegraded(model="user_target")
    told(fake_redis, drift)
    for second in range(3):
        scheduling(fake_redis, fake_queue, mill).look(START + timedelta(seconds=second))
    assert ended(fake_queue) == [("on", f"on drift.detected, event {drift.id}")]
    told(fake_redis, QualityDegraded(model="other"), quality)
    for second in range(3, 6):
        scheduling(fake_redis, fake_queue, mill).look(START + timedelta(seconds=second))
    assert ended(fake_queue) == [("on", f"on quality.degraded, event {quality.id}")]


def test_an_event_that_a_person_appends_with_redis_cli_counts_as_well(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    scheduler = scheduling(fake_redis, fake_queue, declaring(tmp_path, 'on("drift.detected")'))
    scheduler.look(START)
    position = fake_redis.xadd(keys.EVENTS_ALERTS, {"type": "drift.detected", "model": "user_target"})
    scheduler.look(START)
    assert ended(fake_queue) == [("on", f"on drift.detected, event {position}")]


def test_a_training_as_of_a_past_day_keeps_no_trigger_waiting(scheduler: Scheduler) -> None:
    scheduler.queue.enqueue("user_target", trigger="backfill", end="2026-01-01T00:00:00Z")
    scheduler.look(START + MINUTE)
    assert [job.trigger for job in scheduler.queue.jobs()] == ["every", "backfill"]


def test_what_goes_wrong_with_one_model_leaves_the_others_their_slots(
    fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    mill = declaring(tmp_path, "every(seconds=60)")
    head, model = mill.read_text().split("Model(\n")
    mill.write_text(f"{head}Model(\n{model.replace('user_target', 'broken')}\nModel(\n{model}")
    fake_redis.hset(keys.triggers("broken"), "every 60 s", "no state")
    scheduler = scheduling(fake_redis, fake_queue, mill)
    for minute in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            scheduler.look(START + minute * MINUTE)
    assert [job.model for job in fake_queue.jobs()] == ["user_target"]


def test_what_goes_wrong_once_does_not_end_the_watching(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[datetime] = []
    stop = threading.Event()

    def look(now: datetime) -> None:
        looks.append(now)
        if len(looks) == 1:
            raise ValueError("broken")
        stop.set()

    monkeypatch.setattr(scheduler, "look", look)
    monkeypatch.setattr(stop, "wait", lambda _: stop.is_set())
    scheduler.watch(stop, lambda: START)
    assert len(looks) == 2


@pytest.mark.redis
def test_schedulers_side_by_side_count_each_row_and_hear_each_event_once(
    real_redis: RedisServer, tmp_path: Path
) -> None:
    mill = declaring(
        tmp_path, '[after(rows=7, cooldown=None, daily=None), on("drift.detected", cooldown=None, daily=None)]'
    )
    text, queues = real_redis.client(), [TrainingQueue(real_redis.client(text=False)) for _ in range(3)]
    schedulers = [scheduling(real_redis.client(), queue, mill) for queue in queues]
    schedulers[0].look(START)
    heard: list[tuple[str, str]] = []
    events = [DriftDetected(model="user_target") for _ in range(10)]
    with ThreadPoolExecutor(3) as pool:
        for number in range(30):
            told(text, rows(number % 5 + 1), *([events[number // 3]] if number % 3 == 0 else []))
            for _ in range(3):
                list(pool.map(lambda scheduler: scheduler.look(START), schedulers))
                heard += ended(queues[0])
    assert sum(int(by.split()[-2]) for kind, by in heard if kind == "after") in range(84, 91)  # fewer than 7 of 90 wait
    assert sorted(by for kind, by in heard if kind == "on") == sorted(
        f"on drift.detected, event {event.id}" for event in events
    )


@pytest.mark.redis
def test_schedulers_side_by_side_enqueue_each_slot_once(real_redis: RedisServer) -> None:
    queues = [TrainingQueue(real_redis.client(text=False)) for _ in range(3)]
    schedulers = [scheduling(real_redis.client(), queue) for queue in queues]
    schedulers[0].look(START)
    registry = Registry(real_redis.client())
    with ThreadPoolExecutor(3) as pool:
        for minute in range(1, 21):
            looks: list[Callable[[datetime], None]] = [scheduler.look for scheduler in schedulers]
            list(pool.map(lambda look, at: look(at), looks, [START + minute * MINUTE] * 3))
            jobs = queues[0].rq.job_ids
            assert len(jobs) == 1, f"minute {minute}"
            queues[0].cancel(jobs[0], registry)


@pytest.mark.redis
def test_a_scheduler_waits_for_a_redis_that_is_away(real_redis: RedisServer) -> None:
    queue = TrainingQueue(real_redis.client(text=False))
    scheduler, stop, ticks = scheduling(real_redis.client(), queue), threading.Event(), count()
    real_redis.stop()
    thread = threading.Thread(target=scheduler.watch, args=(stop, lambda: START + next(ticks) * MINUTE))
    thread.start()
    real_redis.start()
    try:
        eventually(queue.jobs, within=10, saying="a slot is enqueued after Redis has come back")
    finally:
        stop.set()
        thread.join(timeout=10)
    assert not thread.is_alive()
