"""What a killed worker leaves behind, and how it is put right: looked for every `SWEEP_SECONDS` by every idle worker
and by the trainer's HTTP process.

- A job that was taken from the queue and never claimed goes back to the head of the queue.
- A job whose worker no longer renews its lease waits again, `ATTEMPTS` attempts in all; then it has failed.
- A job that has not ended and is in no list at all waits again, too.
- A job that waits for its next attempt goes into the queue when its time has come.
- A run whose lease has expired is closed as `lost`, and its log is kept. It could record nothing more in any case.
- What a run without a version has left in the storage is removed, see `sweeping`.

Each is one transaction that first looks whether it is still so; any number of processes may do it at once. What decides
is whether keys have expired by the clock of Redis, so the hosts' clocks need not agree.
"""

from __future__ import annotations

import logging
import posixpath
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from typing import Any

from redis.client import Pipeline
from redis.exceptions import WatchError
from rq import Queue, worker_registration
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry
from rq.serializers import JSONSerializer

from modelmill.errors import RunEnded, UnknownName
from modelmill.packages import package
from modelmill.state import keys
from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.trainer.jobs import outcome
from services.trainer.jobs.journal import KEPT_SECONDS, Journal, archive
from services.trainer.jobs.view import ATTEMPTS, ENDED, scheduled
from services.trainer.training import sharing

log = logging.getLogger(__name__)

SWEEP_SECONDS = 2
"""Seconds between two looks."""
LEASE_SECONDS = 10
"""Seconds for which a job belongs to a worker that does not renew its claim."""
STORAGE_SWEEP = 600
"""Seconds between two looks at the storage, by one process each; after a failed or lost run it is looked at once."""
FORGET = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end"
LOST = "worker lost: its process ended, or did not renew its claim on the job in time"


def recover(queue: Queue, registry: Registry, storage: Storage) -> None:
    """Put everything right that a killed worker has left."""
    requeue_unclaimed(queue)
    requeue_abandoned(queue)
    requeue_due(queue)
    restore_strays(queue)
    if close_lost_runs(registry, storage):
        queue.connection.delete(keys.STORAGE_SWEPT)  # they may have left a package
    _tidy(queue)
    if queue.connection.set(keys.STORAGE_SWEPT, "", nx=True, ex=STORAGE_SWEEP):
        sweep(registry, storage)


def watch(queue: Queue, registry: Registry, storage: Storage, stop: Flag) -> None:
    """`recover` every `SWEEP_SECONDS` until `stop` is set."""
    while not stop.wait(SWEEP_SECONDS):
        try:
            recover(queue, registry, storage)
        except AWAY as error:
            log.warning("cannot look for abandoned jobs: %s", error)
        except OSError as error:
            log.warning("cannot tidy the storage: %s", error)


def requeue_unclaimed(queue: Queue) -> None:
    """Put jobs back that have lain between queue and worker for two looks; a worker that lives claims them at once.

    Too early does no harm: a worker's claim fails where the job lies there no longer.
    """
    intermediate = queue.intermediate_queue
    for job_id in intermediate.get_job_ids():
        seen = intermediate.get_first_seen_key(job_id)
        if (
            queue.connection.set(seen, "1", nx=True, ex=60 * SWEEP_SECONDS)
            or queue.connection.ttl(seen) > 59 * SWEEP_SECONDS
        ):
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
                claimed = pipe.zscore(started.key, execution.composite_key) is not None  # not given back since
                if claimed and not pipe.exists(execution.key):
                    _abandon(queue, pipe, execution)
        except WatchError:
            continue  # its worker lives, or someone else was quicker


def _abandon(queue: Queue, pipe: Pipeline, execution: Execution) -> None:
    job = _fetch(queue, execution.job_id)
    pipe.multi()
    pipe.zrem(queue.started_job_registry.key, execution.composite_key)
    if job is not None and job.get_status(refresh=False) == JobStatus.STARTED:
        _begin_again(queue, pipe, job, execution)
    pipe.execute()


def _begin_again(queue: Queue, pipe: Pipeline, job: Job, execution: Execution | None) -> None:
    """Let a job that was lost wait again, if it may, otherwise fail, on a pipeline that is in MULTI."""
    if job.should_retry:
        outcome.again(job, queue, pipe, LOST, pause=0)
    else:
        outcome.give_up(job, pipe, f"{LOST}; that was attempt {ATTEMPTS} of {ATTEMPTS}", "", execution)


def restore_strays(queue: Queue) -> None:
    """Put jobs back that have not ended and are in no list, however that came about: nothing else would find them."""
    known = {job.decode() for job in queue.connection.smembers(keys.OPEN_JOBS)}
    for job_id in sorted(known - _listed(queue)):
        try:
            with queue.connection.pipeline() as pipe:
                pipe.watch(Job.key_for(job_id), *_lists(queue))
                if job_id in _listed(queue):
                    continue
                job = _fetch(queue, job_id)
                pipe.multi()
                status = job and job.get_status(refresh=False)
                if job is None or status in ENDED:
                    pipe.srem(keys.OPEN_JOBS, job_id)
                elif status == JobStatus.STARTED:
                    _begin_again(queue, pipe, job, None)
                else:
                    queue._enqueue_job(job, pipeline=pipe)
                pipe.execute()
        except WatchError:
            continue  # it has just been put somewhere, or someone else was quicker


def _lists(queue: Queue) -> tuple[str, str, str, str]:
    """The keys of all lists that a job may be in until it has ended: two of them lists, two sorted sets."""
    return queue.key, queue.intermediate_queue.key, scheduled(queue).key, queue.started_job_registry.key


def _listed(queue: Queue) -> set[str]:
    """The ids of the jobs in these lists; a started one is followed by the id of its execution."""
    waiting, taken, later, started = _lists(queue)
    with queue.connection.pipeline() as pipe:
        pipe.lrange(waiting, 0, -1).lrange(taken, 0, -1).zrange(later, 0, -1).zrange(started, 0, -1)
        return {entry.decode().partition(":")[0] for entries in pipe.execute() for entry in entries}


def _fetch(queue: Queue, job_id: str) -> Job | None:
    return Job.fetch_many([job_id], connection=queue.connection, serializer=JSONSerializer)[0]


def requeue_due(queue: Queue) -> None:
    """Put jobs into the queue that waited for their next attempt until now."""
    waiting = scheduled(queue)
    for job_id in map(bytes.decode, queue.connection.zrangebyscore(waiting.key, "-inf", _now(queue))):
        try:
            with queue.connection.pipeline() as pipe:
                pipe.watch(waiting.key, Job.key_for(job_id))
                if pipe.zscore(waiting.key, job_id) is None:
                    continue
                job = _fetch(queue, job_id)
                pipe.multi()
                pipe.zrem(waiting.key, job_id)
                if job is not None and job.get_status(refresh=False) == JobStatus.SCHEDULED:
                    queue._enqueue_job(job, pipeline=pipe)
                pipe.execute()
        except WatchError:
            continue  # cancelled, or someone else was quicker


def close_lost_runs(registry: Registry, storage: Storage) -> int:
    """Close the runs whose leases have expired; return how many."""
    closed = 0
    for run in registry.runs.running():
        if run.lease and not registry.redis.exists(run.lease):
            try:
                _close(registry, run)
            except RunEnded:
                continue  # it has just ended by itself
            closed += 1
            if run.job:  # one that was logged by hand has none, and no log
                archive(storage, Journal(registry.redis, run.job), run.model, run.id)
    return closed


def _close(registry: Registry, run: Run) -> None:
    """Close a run whose lease is gone: its process was lost, or it is a trial of a training that was cancelled."""
    with suppress(UnknownName):
        if run.parent and (parent := registry.runs.get(run.parent)).status == "cancelled":
            registry.runs.cancel(run, parent.canceled_by)
            return
    registry.runs.lose(run, LOST)
    log.warning("run %s of %s is closed: %s", run.id, run.model, LOST)


def _tidy(queue: Queue) -> None:
    """Forget ended jobs after their time, and workers that are gone, in RQ's lists."""
    FinishedJobRegistry(queue=queue).cleanup()
    FailedJobRegistry(queue=queue).cleanup()
    canceled = CanceledJobRegistry(queue=queue)
    queue.connection.zremrangebyscore(canceled.key, "-inf", int(_now(queue)) - KEPT_SECONDS)
    worker_registration.clean_worker_registry(queue)
    _forget_ended(queue)


def _forget_ended(queue: Queue) -> None:
    """Drop what `keys.TRAININGS` says of jobs that have ended: nobody would join them, but the hash would grow."""
    places = queue.connection.hgetall(keys.TRAININGS)
    if not places:
        return
    found = Job.fetch_many([job.decode() for job in places.values()], queue.connection, serializer=JSONSerializer)
    for (place, held), job in zip(places.items(), found, strict=True):
        if job is None or job.get_status(refresh=False) in ENDED:
            queue.connection.eval(FORGET, 1, keys.TRAININGS, place, held)


def _now(queue: Queue) -> float:
    seconds, microseconds = queue.connection.time()
    return float(seconds) + float(microseconds) / 1e6


# --- what runs that ended without a version have left in the storage: their packages, what the workers of a search
# shared, and files that were never finished.
#
# A process that was killed cleans nothing up, and one that was stopped and woke late may write a file after its run
# was closed. So it is looked for again and again.

PACKAGES = posixpath.dirname(posixpath.dirname(package.location("model", "run")))
RUNS = "runs"
UNSUCCESSFUL = ("failed", "cancelled", "lost")
UNFINISHED = timedelta(minutes=30)
"""Age at which an unfinished file belongs to nobody any more: none takes so long to write."""


def sweep(registry: Registry, storage: Storage) -> None:
    """Remove the packages of ended runs that have no version, and files that were never finished."""
    for folder in _orphans(registry, _packages(storage)):
        storage.files.rm(storage.path(folder), recursive=True)
        log.warning("removed %s: its run ended without a version", folder)
    sharing.sweep(storage, registry)
    before = datetime.now(UTC) - UNFINISHED
    for folder in (PACKAGES, RUNS):
        if removed := storage.remove_temporary(folder, before):
            log.warning("removed %d files below %s that were never finished", removed, folder)


def _packages(storage: Storage) -> list[str]:
    """The folders of all packages."""
    root = storage.path(PACKAGES)
    if not storage.files.exists(root):
        return []
    storage.files.invalidate_cache(root)
    found = storage.files.find(root, maxdepth=2, withdirs=True)
    names = (str(path)[len(storage.root) + 1 :] for path in found)
    return sorted(name for name in names if name.count("/") == 2 and storage.files.isdir(storage.path(name)))


def _orphans(registry: Registry, folders: list[str]) -> list[str]:
    """The folders of runs that have ended without a version; of what is no run we know nothing."""
    with registry.redis.pipeline(transaction=False) as pipe:
        for folder in folders:
            pipe.hmget(keys.run(posixpath.basename(folder)), "status", "version")
        found = zip(folders, pipe.execute(), strict=True)
    return [folder for folder, (status, version) in found if status in UNSUCCESSFUL and not version]


# --- what earlier attempts of a job had done when their processes were killed


def earlier_attempt(registry: Registry, job: Job) -> dict[str, Any] | None:
    """What an attempt would have returned whose process was killed after it had registered its version.

    Runs that were not that far are closed.
    """
    for run in registry.runs.read(getattr(job, "before", ())):
        if run.version is None:
            with suppress(RunEnded):
                registry.runs.lose(run, LOST)
            continue
        promoted = any(m.version == run.version and m.by == "trainer" for m in registry.history(run.model))
        return {"run": run.id, "version": run.version, "promoted": promoted, "metrics": run.metrics}
    return None
