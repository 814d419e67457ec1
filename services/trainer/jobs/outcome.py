"""How an attempt at a job ends: recorded in one transaction, and only while the attempt still holds the job's lease.

RQ records success and failure without looking whether the job was given to somebody else meanwhile, and cannot tell an
error that may pass from one that stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import orjson
from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.results import Result
from rq.utils import now, utcformat

from modelmill.errors import Conflict
from modelmill.times import iso
from services.trainer.jobs.journal import KEPT_SECONDS, append_to
from services.trainer.jobs.view import ATTEMPTS, CANCELLED, ENDED, attempt_of, scheduled

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


def give_up(job: Job, pipe: Pipeline, error: str, traceback: str, execution: Execution | None) -> None:
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
        worker_name=execution.worker_name if execution else "",
        pipeline=pipe,
        execution_id=execution.id if execution else None,
        execution_started_at=execution.created_at if execution else None,
        execution_ended_at=job.ended_at,
    )
    pipe.expire(job.key, KEPT_SECONDS)
    append_to(pipe, job.id, [{"kind": "end", "status": "failed", "error": error}])


def cancel(job: Job, queue: Queue, said: str) -> None:
    """Take a job from wherever it is, and its lease from whoever works on it; RQ's own way takes neither everywhere.

    Raises:
        Conflict: where it has ended.
    """
    started = queue.started_job_registry

    def change(pipe: Pipeline) -> None:
        if (status := job.get_status()) in ENDED:
            raise Conflict(f"job {job.id} has ended already: {status.value}", job=job.id)
        claims = started.get_job_and_execution_ids(cleanup=False)
        executions = [Execution(number, owner, queue.connection) for owner, number in claims if owner == job.id]
        meta = {**job.get_meta(), "error": said}
        pipe.multi()
        for execution in executions:
            execution.delete(job=job, pipeline=pipe)
        for waiting in (queue.key, queue.intermediate_queue.key):
            pipe.lrem(waiting, 0, job.id)
        pipe.zrem(scheduled(queue).key, job.id)
        job.set_status(JobStatus.CANCELED, pipeline=pipe)
        pipe.hset(job.key, mapping={"meta": orjson.dumps(meta), "ended_at": utcformat(now())})
        pipe.expire(job.key, KEPT_SECONDS)
        CanceledJobRegistry(queue=queue).add(job, pipeline=pipe)
        ended = [{"kind": "end", "status": CANCELLED, "error": said}]
        append_to(pipe, job.id, ended if executions else [*ended, {"kind": "closed"}])

    queue.connection.transaction(change, job.key)


def claim(job: Job, execution: Execution) -> tuple[str, str]:
    """The keys to be watched where it matters whose the job is: the lease, and the list of started jobs."""
    return execution.key, job.started_job_registry.key


def is_ours(pipe: Pipeline, job: Job, execution: Execution) -> bool:
    """Whether the job is still this attempt's: its lease is there, and its claim is in the list of started jobs, which
    cancelation and recovery take it off. `pipe` watches both."""
    lease, started = claim(job, execution)
    return bool(pipe.exists(lease)) and pipe.zscore(started, execution.composite_key) is not None


def _if_ours(queue: Queue, job: Job, execution: Execution, record: Callable[[Pipeline], None]) -> bool:
    """`record`, in one transaction with taking the claim off the list of started jobs.

    Where the lease is gone, all stays as it is: while the claim is in the list, recovery finds the job by it.
    """
    status, left, meta = job.get_status(refresh=False), job.retries_left, dict(job.meta)

    def change(pipe: Pipeline) -> bool:
        ours = is_ours(pipe, job, execution)
        # A try that came to nothing may have changed them.
        job._status, job.retries_left, job.meta = status, left, dict(meta)
        pipe.multi()
        if ours:
            execution.delete(job=job, pipeline=pipe)
            record(pipe)
        return ours

    return bool(queue.connection.transaction(change, *claim(job, execution), value_from_callable=True))
