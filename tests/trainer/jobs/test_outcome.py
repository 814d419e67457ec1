"""How attempts end, and that only who holds the lease can end them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer

from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from services.trainer.jobs import outcome, recovery
from services.trainer.jobs.journal import Journal, readable
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.recovery import requeue_due
from services.trainer.jobs.view import JobView
from tests.trainer.conftest import began

DUE = -1.0
"""A pause that is over already."""


class Attempt:
    """A job that has been begun, and what is held of it."""

    def __init__(self, queue: TrainingQueue) -> None:
        self.queue = queue
        self.id = queue.enqueue("m")
        self.begin()

    def begin(self) -> None:
        left = self.queue.redis.hget(f"rq:job:{self.id}", "retries_left")
        key = began(self.queue, self.id)
        if left is not None:
            self.queue.redis.hset(f"rq:job:{self.id}", "retries_left", left)
        self.job = Job.fetch(self.id, connection=self.queue.redis, serializer=JSONSerializer)
        self.execution = Execution(key.rpartition(":")[2], self.id, self.queue.redis, "w")

    def fail(self, pause: float | None, error: str = "away") -> bool:
        return outcome.fail(
            self.job, self.queue.rq, self.execution, lambda _: None, error=error, traceback="", pause=pause
        )

    def succeed(self) -> bool:
        return outcome.succeed(self.job, self.queue.rq, self.execution, lambda _: None)

    @property
    def view(self) -> JobView:
        return self.queue.job(self.id)

    @property
    def told(self) -> list[dict[str, str]]:
        entries = self.queue.redis.xrange(Journal(self.queue.redis, self.id).key)
        return [readable(fields) for _, fields in entries]


@pytest.fixture
def attempt(fake_queue: TrainingQueue) -> Attempt:
    return Attempt(fake_queue)


def test_success_ends_the_job_and_gives_back_the_lease(attempt: Attempt) -> None:
    assert attempt.succeed()
    assert attempt.view.status == "finished"
    assert not attempt.queue.redis.exists(attempt.execution.key)
    assert attempt.told[-1] == {"kind": "end", "status": "finished", "error": ""}
    assert 0 < attempt.queue.redis.ttl(f"rq:job:{attempt.id}") <= 86400


def test_an_error_that_may_pass_lets_the_job_wait_for_its_next_attempt(attempt: Attempt) -> None:
    assert attempt.fail(30.0)
    view = attempt.view
    assert (view.status, view.stage, view.attempt, view.reason) == ("scheduled", "scheduled", 1, "away")
    assert view.scheduled is not None
    assert attempt.told[-1] == {"kind": "again", "attempt": "1", "error": "away", "at": view.scheduled}
    assert [job.job for job in attempt.queue.jobs()] == [attempt.id]
    requeue_due(attempt.queue.rq)
    assert attempt.view.status == "scheduled"


def test_it_is_put_into_the_queue_when_its_time_has_come(attempt: Attempt) -> None:
    attempt.fail(DUE)
    requeue_due(attempt.queue.rq)
    requeue_due(attempt.queue.rq)
    assert attempt.queue.rq.job_ids == [attempt.id]
    attempt.begin()
    assert (attempt.view.attempt, attempt.view.reason) == (2, "away")


def test_after_three_attempts_it_has_failed(attempt: Attempt) -> None:
    for _ in range(2):
        attempt.fail(DUE)
        requeue_due(attempt.queue.rq)
        attempt.begin()
    attempt.fail(DUE, "still away")
    assert (attempt.view.status, attempt.view.attempt, attempt.view.error) == ("failed", 3, "still away")
    assert attempt.told[-1] == {"kind": "end", "status": "failed", "error": "still away"}


def test_an_error_that_stays_is_final(attempt: Attempt) -> None:
    attempt.fail(None, "no rows")
    assert (attempt.view.status, attempt.view.attempt, attempt.view.error) == ("failed", 1, "no rows")


def test_a_job_that_waits_for_its_next_attempt_can_be_cancelled(attempt: Attempt, registry: Registry) -> None:
    attempt.fail(DUE)
    attempt.queue.cancel(attempt.id, registry)
    requeue_due(attempt.queue.rq)
    assert (attempt.view.status, attempt.queue.rq.job_ids) == ("cancelled", [])


def test_a_job_without_its_lease_can_be_cancelled(attempt: Attempt, registry: Registry) -> None:
    attempt.queue.redis.delete(attempt.execution.key)
    assert attempt.queue.cancel(attempt.id, registry).status == "cancelled"
    assert attempt.queue.rq.started_job_registry.get_job_and_execution_ids(cleanup=False) == []


@pytest.mark.parametrize("run", ["failed", "lost"])
def test_a_job_whose_run_has_ended_and_that_may_begin_again_can_be_cancelled(
    attempt: Attempt, registry: Registry, run: str
) -> None:
    started = Run(id="r1", model="m", started=utc_now(), job=attempt.id)
    registry.runs.start(started)
    attempt.queue.redis.hset(f"rq:job:{attempt.id}", "meta", '{"run": "r1"}')
    registry.runs.lose(started, "gone") if run == "lost" else registry.runs.fail(started, "away", "")
    assert attempt.queue.cancel(attempt.id, registry).status == "cancelled"
    assert registry.runs.get("r1").status == run


@pytest.mark.parametrize("end", [Attempt.succeed, lambda attempt: attempt.fail(0.0)], ids=["success", "failure"])
def test_who_has_lost_the_lease_records_nothing(attempt: Attempt, end: Callable[[Attempt], bool]) -> None:
    attempt.queue.redis.delete(attempt.execution.key)
    assert not end(attempt)
    assert attempt.view.status == "started"
    assert attempt.told == []
    recovery.requeue_abandoned(attempt.queue.rq)
    assert attempt.view.status == "queued", "recovery still finds it"
