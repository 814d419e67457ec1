"""What killed workers leave behind is put right, once, whoever looks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.jobs import recovery
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.recovery import (
    LOST,
    close_lost_runs,
    recover,
    requeue_abandoned,
    requeue_unclaimed,
    restore_strays,
)
from services.trainer.jobs.view import ATTEMPTS
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.trainer.conftest import began

pytestmark = pytest.mark.redis


@pytest.fixture
def queue(real_redis: RedisServer) -> TrainingQueue:
    return TrainingQueue(real_redis.client(text=False))


@pytest.fixture
def registry(real_redis: RedisServer) -> Iterator[Registry]:
    return Registry(real_redis.client())


def start_run(registry: Registry, run: str, lease: str) -> None:
    registry.runs.start(Run(id=run, model="m", started=utc_now(), lease=lease))


def take(queue: TrainingQueue, job: str) -> None:
    """What a worker does before it claims a job."""
    queue.redis.lmove(queue.rq.key, queue.rq.intermediate_queue.key)
    assert queue.rq.intermediate_queue.get_job_ids() == [job]


def test_a_job_that_was_taken_and_never_claimed_waits_again_within_seconds(queue: TrainingQueue) -> None:
    job = queue.enqueue("m")
    take(queue, job)
    requeue_unclaimed(queue.rq)
    assert queue.rq.job_ids == [], "a worker that lives still claims it"

    def back() -> bool:
        requeue_unclaimed(queue.rq)
        return bool(queue.rq.job_ids == [job])

    eventually(back, within=2 * recovery.SWEEP_SECONDS, saying="the job is back in the queue")
    assert queue.rq.intermediate_queue.get_job_ids() == []


def test_a_taken_job_that_was_canceled_does_not_come_back(queue: TrainingQueue, registry: Registry) -> None:
    job = queue.enqueue("m")
    take(queue, job)
    queue.cancel(job, registry)

    def gone() -> bool:
        requeue_unclaimed(queue.rq)
        return not queue.rq.intermediate_queue.get_job_ids()

    eventually(gone, within=2 * recovery.SWEEP_SECONDS, saying="the job is forgotten")
    assert queue.rq.job_ids == []


def test_a_job_with_a_lease_is_left_alone(queue: TrainingQueue, registry: Registry, storage: Storage) -> None:
    job = queue.enqueue("m")
    start_run(registry, "r1", began(queue, job, run="r1"))
    recover(queue.rq, registry, storage)
    assert queue.job(job).status == "started"
    assert registry.runs.get("r1").status == "running"


def test_a_job_whose_lease_ran_out_waits_again_and_its_run_is_closed(
    queue: TrainingQueue, registry: Registry, storage: Storage
) -> None:
    job = queue.enqueue("m")
    lease = began(queue, job, run="r1")
    start_run(registry, "r1", lease)
    queue.redis.delete(lease)
    recover(queue.rq, registry, storage)
    assert queue.rq.job_ids == [job]
    assert (registry.runs.get("r1").status, registry.runs.get("r1").error) == ("lost", LOST)


def test_after_three_attempts_the_job_has_failed(queue: TrainingQueue) -> None:
    job = queue.enqueue("m")
    for attempt in range(ATTEMPTS):
        left = queue.redis.hget(f"rq:job:{job}", "retries_left")
        execution = began(queue, job)
        if left is not None:
            queue.redis.hset(f"rq:job:{job}", "retries_left", left)
        queue.redis.delete(execution)
        requeue_abandoned(queue.rq)
        assert queue.job(job).status == ("queued" if attempt < ATTEMPTS - 1 else "failed")
    assert queue.job(job).error == f"{LOST}; that was attempt 3 of 3"
    assert queue.rq.job_ids == []


@pytest.mark.parametrize("status", ["queued", "scheduled", "started"])
def test_a_job_that_is_in_no_list_waits_again(queue: TrainingQueue, status: str) -> None:
    job = queue.enqueue("m")
    if status == "started":
        queue.redis.delete(began(queue, job), queue.rq.started_job_registry.key)
    queue.redis.hset(f"rq:job:{job}", "status", status)
    queue.redis.delete(queue.rq.key)
    restore_strays(queue.rq)
    restore_strays(queue.rq)
    assert queue.rq.job_ids == [job]
    assert (queue.job(job).status, queue.job(job).attempt) == ("queued", 1 if status == "started" else 0)


def test_jobs_that_have_ended_are_forgotten_and_those_in_a_list_left_alone(
    queue: TrainingQueue, registry: Registry
) -> None:
    ended, waiting, taken, started = (queue.enqueue("m", start=str(number)) for number in range(4))
    queue.cancel(ended, registry)
    began(queue, started)
    queue.redis.lrem(queue.rq.key, 1, taken)
    queue.redis.lpush(queue.rq.intermediate_queue.key, taken)
    restore_strays(queue.rq)
    assert queue.redis.smembers(keys.OPEN_JOBS) == {job.encode() for job in (waiting, taken, started)}
    assert [queue.job(job).status for job in (ended, waiting, taken, started)] == [
        "cancelled", "queued", "queued", "started",
    ]  # fmt: skip


def test_many_that_look_at_once_requeue_a_job_once(queue: TrainingQueue) -> None:
    job = queue.enqueue("m")
    queue.redis.delete(began(queue, job))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: requeue_abandoned(queue.rq), range(16)))
    assert queue.rq.job_ids == [job]


def test_only_the_run_whose_lease_has_expired_is_closed(
    queue: TrainingQueue, registry: Registry, storage: Storage
) -> None:
    leases = [began(queue, queue.enqueue("m")) for _ in range(2)]
    for number, lease in enumerate([*leases, ""]):
        start_run(registry, f"r{number}", lease)
    queue.redis.delete(leases[0])
    close_lost_runs(registry, storage)
    assert [registry.runs.get(f"r{number}").status for number in range(3)] == ["lost", "running", "running"]
    assert registry.runs.get("r0").error == LOST
    assert {run.id for run in registry.runs.running()} == {"r1", "r2"}
