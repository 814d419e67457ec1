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
from services.trainer.triggers.schedule import GRACE, Scheduler

from modelmill.connections import Redis
from modelmill.registry import Registry
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.recipes import Recipes
from tests.conftest import USERS_MILL, RedisServer
from tests.eventually import eventually

START = datetime(2026, 5, 4, 12, 0, 0, 500_000, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def counted(outcome: str) -> float:
    labels = {"model": "user_target", "outcome": outcome}
    return REGISTRY.get_sample_value("modelmill_schedule_slots_total", labels) or 0.0


@pytest.fixture
def scheduler(fake_redis: Redis, fake_queue: TrainingQueue) -> Scheduler:
    """A scheduler of the users example (every minute), that has looked at 12:00."""
    scheduler = Scheduler(Recipes(fake_redis, USERS_MILL), fake_queue)
    scheduler.look(START)
    return scheduler


def test_the_first_look_enqueues_nothing(scheduler: Scheduler) -> None:
    assert scheduler.queue.jobs() == []


def test_a_due_slot_is_enqueued_once_and_says_what_triggered_it(scheduler: Scheduler) -> None:
    for second in range(60, 65):
        scheduler.look(START + timedelta(seconds=second))
    assert [(job.model, job.trigger, job.by) for job in scheduler.queue.jobs()] == [
        ("user_target", "schedule", "every 60 s")
    ]


def test_each_slot_is_enqueued_once_its_training_has_ended(scheduler: Scheduler) -> None:
    for minute in range(1, 4):
        scheduler.look(START + minute * MINUTE)
        scheduler.queue.rq.empty()
    assert counted("enqueued") >= 3


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
    nightly = tmp_path / "mill.py"
    nightly.write_text(
        USERS_MILL.read_text().replace("every(seconds=60)", 'cron("0 3 * * *")').replace("every", "cron")
    )
    scheduler, before = Scheduler(Recipes(fake_redis, nightly), fake_queue), counted("skipped_late")
    three = datetime(2026, 5, 4, 3, tzinfo=UTC)
    scheduler.look(three - MINUTE)
    scheduler.look(three + GRACE + timedelta(seconds=1))
    assert (fake_queue.jobs(), counted("skipped_late") - before) == ([], 1)
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


@pytest.mark.redis
def test_schedulers_side_by_side_enqueue_each_slot_once(real_redis: RedisServer) -> None:
    recipes = Recipes(real_redis.client(), USERS_MILL)
    queues = [TrainingQueue(real_redis.client(text=False)) for _ in range(3)]
    schedulers = [Scheduler(recipes, queue) for queue in queues]
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
    scheduler, stop, ticks = Scheduler(Recipes(real_redis.client(), USERS_MILL), queue), threading.Event(), count()
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
