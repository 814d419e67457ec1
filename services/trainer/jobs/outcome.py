"""How an attempt at a job ends: recorded in one transaction, and only while the attempt still holds the job's lease.

RQ records success and failure without looking whether the job was given to somebody else meanwhile, and cannot tell an
error that may pass from one that stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.results import Result
from rq.utils import now

from modelmill.events import iso
from services.trainer.jobs.journal import KEPT_SECONDS, append_to
from services.trainer.jobs.priority import scheduled
from services.trainer.jobs.retry import ATTEMPTS
from services.trainer.jobs.view import attempt_of

log = logging.getLogger(__name__)

Counts = Callable[[Pipeline], object]
"""Queues the commands by which a worker counts what it did."""


def succeed(job: Job, queue: Queue, execution: Execution, count: Counts) -> bool:
    """Record that the job has finished; False, and nothing is recorded, where it is not this attempt's any more."""

    def record(pipe: Pipeline) -> None:
        job._handle_success(
            KEPT_SECONDS,
            pipeline=pipe,
            worker_name=execution.worker_name,
            execution_id=execution.id,
            execution_started_at=execution.created_at,
            execution_ended_at=job.ended_at,
        )
        job.cleanup(KEPT_SECONDS, pipeline=pipe, remove_from_queue=False)
        append_to(pipe, job.id, [{"kind": "end", "status": "finished", "error": ""}])
        count(pipe)

    return _if_ours(queue, job, execution, record)


def fail(
    job: Job, queue: Queue, execution: Execution, count: Counts, *, error: str, traceback: str, pause: float | None
) -> bool:
    """Record that the attempt failed: the job waits for `pause` seconds and is tried again, or, where that is None or
    no attempt is left, has failed. False where it is not this attempt's any more."""

    def record(pipe: Pipeline) -> None:
        count(pipe)
        if pause is not None and job.should_retry:
            again(job, queue, pipe, error, pause)
        else:
            give_up(job, pipe, error, traceback, execution)

    return _if_ours(queue, job, execution, record)


def again(job: Job, queue: Queue, pipe: Pipeline, error: str, pause: float) -> None:
    """Let the job wait for its next attempt, which begins `pause` seconds from now at the earliest."""
    attempt = attempt_of(job)
    due = now() + timedelta(seconds=pause)
    job.retries_left = (job.retries_left or 1) - 1
    job.meta["reason"] = error
    if pause:
        job.set_status(JobStatus.SCHEDULED, pipeline=pipe)
        job.save(pipeline=pipe)
        pipe.zadd(scheduled(queue).key, {job.id: due.timestamp()})
    else:
        queue._enqueue_job(job, pipeline=pipe)
    entry = {"kind": "again", "attempt": str(attempt), "error": error, "at": iso(due)}
    append_to(pipe, job.id, [entry])
    log.warning("job %s: attempt %d of %d failed, next in %.1f s: %s", job.id, attempt, ATTEMPTS, pause, error)


def give_up(job: Job, pipe: Pipeline, error: str, traceback: str, execution: Execution) -> None:
    """Record that the job has failed for good."""
    job.ended_at = job.ended_at or now()
    job.meta["error"] = error
    job.set_status(JobStatus.FAILED, pipeline=pipe)
    job.save(pipeline=pipe, include_result=False)
    job.failed_job_registry.add(job, ttl=KEPT_SECONDS, exc_string=traceback or error, pipeline=pipe)
    Result.create_failure(
        job,
        KEPT_SECONDS,
        exc_string=traceback or error,
        worker_name=execution.worker_name,
        pipeline=pipe,
        execution_id=execution.id,
        execution_started_at=execution.created_at,
        execution_ended_at=job.ended_at,
    )
    pipe.expire(job.key, KEPT_SECONDS)
    append_to(pipe, job.id, [{"kind": "end", "status": "failed", "error": error}])


def _if_ours(queue: Queue, job: Job, execution: Execution, record: Callable[[Pipeline], None]) -> bool:
    """`record`, in one transaction with taking the claim off the list of started jobs; not without its lease."""
    started = queue.started_job_registry.key
    left, meta = job.retries_left, dict(job.meta)

    def change(pipe: Pipeline) -> bool:
        ours = bool(pipe.exists(execution.key)) and pipe.zscore(started, execution.composite_key) is not None
        job.retries_left, job.meta = left, dict(meta)  # it may have been changed by a try that came to nothing
        pipe.multi()
        execution.delete(job=job, pipeline=pipe)
        if ours:
            record(pipe)
        return ours

    return bool(queue.connection.transaction(change, execution.key, value_from_callable=True))
