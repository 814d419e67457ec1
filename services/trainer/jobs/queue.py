"""The queue of trainings: RQ's queue `train`, so that `rq info` and rq-dashboard see the same jobs.

Jobs are JSON, never pickles, and name their function as text, so that nothing of it is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis.client import Pipeline
from rq import Queue
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.serializers import JSONSerializer

from modelmill import keys
from modelmill.connections import Redis
from modelmill.errors import Conflict, QueueFull, RunEnded, UnknownName
from modelmill.events import iso
from modelmill.registry import Registry

TRAIN = "services.trainer.job.train"
"""The function that a job of a training names."""
REGISTER = "services.trainer.exchange.job.register_upload"
"""And that of one which registers a model that was trained elsewhere."""
FUNCTIONS = (TRAIN, REGISTER)
"""All that may run."""
KEPT_SECONDS = 24 * 3600
"""How long an ended job can still be looked at; its run is kept for good."""
LISTED = 50
"""Ended jobs of each kind that a list shows."""
ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED)


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as people see it. Times are ISO 8601 in UTC, absent ones None."""

    job: str
    url: str
    model: str | None
    """None for a job that is not ours."""
    status: str
    """As RQ names it: queued, started, finished, failed, canceled or stopped."""
    stage: str
    progress: float
    """Share of the work that is done."""
    position: int | None
    """Jobs that wait before it; None unless it waits too."""
    run: str | None
    rows: int | None
    """Rows to train on, once they are known."""
    trigger: str
    by: str
    enqueued: str | None
    started: str | None
    ended: str | None
    error: str
    """Why it failed, in one sentence; the run has the traceback."""


class TrainingQueue:
    """Trainings that wait, run or have ended, in `redis` (a client that does not decode)."""

    def __init__(self, redis: Redis, *, timeout: int = 3600, limit: int = 1000) -> None:
        self.redis = redis
        self.rq = Queue(keys.QUEUE, connection=redis, serializer=JSONSerializer)
        self.timeout = timeout
        self.limit = limit

    def enqueue(
        self,
        model: str,
        *,
        trigger: str = "manual",
        by: str = "",
        start: str | None = None,
        end: str | None = None,
        pipeline: Pipeline | None = None,
    ) -> str:
        """Append a training and return its job's id; with `pipeline` it is appended when that is executed.

        Raises:
            QueueFull: where `limit` trainings wait.
        """
        waiting = self.rq.count
        if waiting >= self.limit:
            raise QueueFull(waiting, self.limit)
        job = self.rq.enqueue_call(
            TRAIN,
            kwargs={"model": model, "trigger": trigger, "by": by, "start": start, "end": end},
            timeout=self.timeout,
            result_ttl=KEPT_SECONDS,
            failure_ttl=KEPT_SECONDS,
            description=f"train {model} ({trigger}{f' by {by}' if by else ''})",
            pipeline=pipeline,
        )
        return str(job.id)

    def job(self, job_id: str) -> JobView:
        """The job of this id, or `UnknownName`."""
        return self._view(self._fetch(job_id))

    def jobs(self) -> list[JobView]:
        """Jobs that wait or run, then those that ended last, newest first."""
        active = self._active()
        newest: list[str] = []
        for registry in (
            self.rq.finished_job_registry,
            self.rq.failed_job_registry,
            CanceledJobRegistry(queue=self.rq),
        ):
            newest += registry.get_job_ids(0, LISTED - 1, desc=True, cleanup=False)
        ended = sorted(self._fetch_all(newest), key=lambda job: job.ended_at or job.created_at, reverse=True)
        return [self._view(job) for job in (*reversed(active), *ended[:LISTED])]

    def is_pending(self, model: str) -> bool:
        """Whether a training of `model` waits or runs."""
        return any(_arguments(job).get("model") == model for job in self._active() if job.func_name == TRAIN)

    def cancel(self, job_id: str, registry: Registry, *, by: str = "") -> JobView:
        """Take a waiting job off the queue, or stop a running one: its worker kills it within seconds.

        Its run is closed first: from then on nothing more of it can be registered.

        Raises:
            UnknownName: for a job that does not exist.
            Conflict: for a job that has ended.
        """
        job = self._fetch(job_id)
        status = job.get_status()
        if status in ENDED:
            raise Conflict(f"job {job_id} has ended already: {status.value}", job=job_id, status=status.value)
        if run_id := job.get_meta().get("run"):
            try:
                registry.runs.fail(registry.runs.get(run_id), f"canceled{f' by {by}' if by else ''}", "")
            except UnknownName:
                pass  # the job has only just begun and not recorded it yet
            except RunEnded as ended:
                if job.get_status() != JobStatus.QUEUED:
                    raise Conflict(f"job {job_id} has ended already: {ended.detail}", job=job_id) from None
        job.cancel()
        self.redis.expire(job.key, KEPT_SECONDS)
        return self.job(job_id)

    def _active(self) -> list[Job]:
        """Jobs that wait or run, in the order of the queue, running ones first."""
        running = self.rq.started_job_registry.get_job_ids(cleanup=False)
        taken = self.rq.intermediate_queue.get_job_ids()
        return self._fetch_all(dict.fromkeys([*running, *taken, *self.rq.get_job_ids()]))

    def _fetch(self, job_id: str) -> Job:
        try:
            return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)
        except NoSuchJobError:
            raise UnknownName("job", job_id, [known.job for known in self.jobs()]) from None

    def _fetch_all(self, ids: Iterable[str]) -> list[Job]:
        found = Job.fetch_many(list(ids), connection=self.redis, serializer=JSONSerializer)
        return [job for job in found if job is not None]

    def _view(self, job: Job) -> JobView:
        status = job.get_status(refresh=False)
        arguments = _arguments(job)
        waits = status == JobStatus.QUEUED  # a job that waits again still has the marks of its last attempt
        meta: dict[str, Any] = {} if waits else job.meta
        return JobView(
            job=job.id,
            url=f"/jobs/{job.id}",
            model=arguments.get("model"),
            status=status.value,
            stage="queued" if waits else meta.get("stage", ""),
            progress=meta.get("progress", 0.0),
            position=self.rq.get_job_position(job.id) if waits else None,
            run=meta.get("run"),
            rows=meta.get("rows"),
            trigger=arguments.get("trigger", "manual"),
            by=arguments.get("by", ""),
            enqueued=_time(job.enqueued_at),
            started=None if waits else _time(job.started_at),
            ended=None if waits else _time(job.ended_at),
            error=_error(job, status),
        )


def _arguments(job: Job) -> dict[str, Any]:
    """The keyword arguments of a job of ours, also of one that was enqueued from the shell; of others none."""
    try:
        if job.func_name not in FUNCTIONS:
            return {}
        names = ("model", "trigger", "by", "start", "end")
        return {**dict(zip(names, job.args, strict=False)), **job.kwargs}
    except (DeserializationError, TypeError):
        return {}


def _error(job: Job, status: JobStatus) -> str:
    if status != JobStatus.FAILED:
        return ""
    if known := job.meta.get("error"):
        return str(known)
    result = job.latest_result()
    lines = (result.exc_string or "").strip().splitlines() if result else []
    return re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", lines[-1]) if lines else "unknown"


def _time(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
