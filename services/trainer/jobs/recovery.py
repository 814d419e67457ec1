"""What a killed worker leaves behind, and how it is put right: looked for every `SWEEP` seconds by every idle worker
and by the trainer's HTTP process.

- A job that was taken from the queue and never claimed goes back to the head of the queue.
- A job whose worker no longer renews its lease waits again, `ATTEMPTS` attempts in all; then it has failed.
- A run whose lease has expired is closed as failed, `worker lost`. It could record nothing more in any case.

Each is one transaction that first looks whether it is still so; any number of processes may do it at once. What decides
is whether keys have expired by the clock of Redis, so the hosts' clocks need not agree.
"""

from __future__ import annotations

import json
import logging
from threading import Event as Flag

from redis.client import Pipeline
from redis.exceptions import WatchError
from rq import Queue, worker_registration
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.job_lifecycle import record_job_failure
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry
from rq.serializers import JSONSerializer

from modelmill.connections import AWAY
from modelmill.errors import RunEnded
from modelmill.registry import Registry
from services.trainer.jobs.queue import KEPT_SECONDS

log = logging.getLogger(__name__)

SWEEP = 2
"""Seconds between two looks."""
LEASE = 10
"""Seconds for which a job belongs to a worker that does not renew its claim."""
ATTEMPTS = 3
"""How often a job is begun before it has failed."""
LOST = "worker lost: its process ended, or did not renew its claim on the job in time"


def recover(queue: Queue, registry: Registry) -> None:
    """Put everything right that a killed worker has left."""
    requeue_unclaimed(queue)
    requeue_abandoned(queue)
    close_lost_runs(registry)
    _tidy(queue)


def watch(queue: Queue, registry: Registry, stop: Flag) -> None:
    """`recover` every `SWEEP` seconds until `stop` is set."""
    while not stop.wait(SWEEP):
        try:
            recover(queue, registry)
        except AWAY as error:
            log.warning("cannot look for abandoned jobs: %s", error)


def requeue_unclaimed(queue: Queue) -> None:
    """Put jobs back that have lain between queue and worker for two looks; a worker that lives claims them at once.

    Too early does no harm: a worker's claim fails where the job lies there no longer.
    """
    intermediate = queue.intermediate_queue
    for job_id in intermediate.get_job_ids():
        seen = intermediate.get_first_seen_key(job_id)
        if queue.connection.set(seen, "1", nx=True, ex=60 * SWEEP) or queue.connection.ttl(seen) > 59 * SWEEP:
            continue
        try:
            with queue.connection.pipeline() as pipe:
                pipe.watch(intermediate.key, Job.key_for(job_id))
                waits = pipe.hget(Job.key_for(job_id), "status") == b"queued"
                if pipe.lpos(intermediate.key, job_id) is None:
                    continue
                pipe.multi()
                pipe.lrem(intermediate.key, 1, job_id)
                if waits:
                    pipe.lpush(queue.key, job_id)
                pipe.delete(seen)
                pipe.execute()
        except WatchError:
            continue  # its worker lives, or someone else was quicker
        log.warning("job %s was taken by a worker that died before it began; it waits again", job_id)


def requeue_abandoned(queue: Queue) -> None:
    """Let jobs wait again whose worker has not renewed its lease; fail those whose attempts are used up."""
    started = queue.started_job_registry
    for job_id, execution_id in started.get_job_and_execution_ids(cleanup=False):
        execution = Execution(execution_id, job_id, queue.connection)
        try:
            with queue.connection.pipeline() as pipe:
                pipe.watch(started.key, execution.key, Job.key_for(job_id))
                if not pipe.exists(execution.key):
                    _abandon(queue, pipe, execution)
        except WatchError:
            continue  # its worker lives, or someone else was quicker


def _abandon(queue: Queue, pipe: Pipeline, execution: Execution) -> None:
    found = Job.fetch_many([execution.job_id], connection=queue.connection, serializer=JSONSerializer)
    job = found[0]
    pipe.multi()
    pipe.zrem(queue.started_job_registry.key, execution.composite_key)
    if job is None or job.get_status(refresh=False) != JobStatus.STARTED:
        pipe.execute()
        return
    again = job.should_retry
    if again:
        job.retry(queue, pipe)
    else:
        job.meta["error"] = f"{LOST}; that was attempt {ATTEMPTS} of {ATTEMPTS}"
        pipe.hset(job.key, "meta", json.dumps(job.meta))
        record_job_failure(job, job.meta["error"], pipe)
    pipe.execute()
    log.warning("job %s was abandoned by its worker; %s", job.id, "it waits again" if again else "it has failed")


def close_lost_runs(registry: Registry) -> None:
    """Close the runs whose leases have expired."""
    for run in registry.runs.running():
        if run.lease and not registry.redis.exists(run.lease):
            try:
                registry.runs.fail(run, LOST, "")
                log.warning("run %s of %s is closed: %s", run.id, run.model, LOST)
            except RunEnded:
                continue  # it has just ended by itself


def _tidy(queue: Queue) -> None:
    """Forget ended jobs after their time, and workers that are gone, in RQ's lists."""
    FinishedJobRegistry(queue=queue).cleanup()
    FailedJobRegistry(queue=queue).cleanup()
    canceled = CanceledJobRegistry(queue=queue)
    queue.connection.zremrangebyscore(canceled.key, "-inf", int(_now(queue)) - KEPT_SECONDS)
    worker_registration.clean_worker_registry(queue)


def _now(queue: Queue) -> float:
    seconds, microseconds = queue.connection.time()
    return float(seconds) + float(microseconds) / 1e6
