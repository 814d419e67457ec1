"""A job as people see it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job, JobStatus

from modelmill.state import keys
from modelmill.state.events import iso
from services.trainer.jobs.priority import PriorityQueue, name_of, scheduled
from services.trainer.jobs.retry import ATTEMPTS

TRAIN = "services.trainer.job.train"
"""The function that the job of a training names."""
TRIAL = "services.trainer.job.trial"
"""That of one which helps with the search of a training."""
REGISTER = "services.trainer.exchange.job.register_upload"
"""That of one which registers a model that was trained elsewhere."""
REPRODUCE = "services.trainer.trace.reproduce.reproduce"
"""And that of one which repeats a run."""
FUNCTIONS: tuple[str, ...] = (TRAIN, TRIAL, REGISTER, REPRODUCE)
"""Every function that a worker runs."""
ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED)
ARGUMENTS = ("model", "trigger", "by", "start", "end")
CANCELLED = "cancelled"
ENDED_NAMES = ("finished", "failed", CANCELLED)
"""Statuses of a job that do not change any more."""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as people see it. Times are ISO 8601 in UTC, absent ones None."""

    job: str
    url: str
    model: str | None
    """None for a job that is not ours."""
    status: str
    """queued, scheduled (it waits for its next attempt), started, finished, failed or cancelled."""
    priority: str
    """high, normal or low."""
    stage: str
    progress: float
    """Share of the work that is done."""
    position: int | None
    """Jobs that wait before it; None unless it waits too."""
    run: str | None
    """The run that it makes, or repeats."""
    rows: int | None
    """Rows to train on, once they are known."""
    attempt: int
    """How often it has been begun."""
    attempts: int
    """How often it may be begun before it has failed."""
    reason: str
    """Why the last attempt failed, where another one follows or followed."""
    timeout: int | None
    """Seconds after which an attempt is stopped and the job has failed."""
    trigger: str
    by: str
    enqueued: str | None
    scheduled: str | None
    """When the next attempt begins, where it waits for that."""
    started: str | None
    ended: str | None
    error: str
    """Why it failed, or who cancelled it, in one sentence; the run has the traceback."""


def view(queue: PriorityQueue, job: Job) -> JobView:
    """`job` as people see it."""
    status = job.get_status(refresh=False)
    arguments = arguments_of(job) or repetition_of(job)
    waits = status in (JobStatus.QUEUED, JobStatus.SCHEDULED)  # one that waits again has the marks of its last attempt
    meta: dict[str, Any] = {} if waits else job.meta
    return JobView(
        job=job.id,
        url=f"/jobs/{job.id}",
        model=arguments.get("model"),
        status=CANCELLED if status in (JobStatus.CANCELED, JobStatus.STOPPED) else status.value,
        priority=name_of(queue.connection.hget(job.key, keys.JOB_PRIORITY)),
        stage=status.value if waits else meta.get("stage", ""),
        progress=meta.get("progress", 0.0),
        position=queue.get_job_position(job.id) if status == JobStatus.QUEUED else None,
        run=arguments.get("run") or (meta.get("run") if "stage" in meta else None),
        rows=meta.get("rows"),
        attempt=attempt_of(job),
        attempts=ATTEMPTS,
        reason=str(job.meta.get("reason", "")),
        timeout=None if job.timeout is None else int(job.timeout),
        trigger=arguments.get("trigger", "manual"),
        by=arguments.get("by", ""),
        enqueued=_time(job.enqueued_at),
        scheduled=_time(_scheduled(queue, job)) if status == JobStatus.SCHEDULED else None,
        started=None if waits else _time(job.started_at),
        ended=None if waits else _time(job.ended_at),
        error=_error(job, status),
    )


def attempt_of(job: Job) -> int:
    """How often a job has been begun: 0 for one that has waited from the start."""
    if job.retries_left is None:
        return 0
    waits = job.get_status(refresh=False) in (JobStatus.QUEUED, JobStatus.SCHEDULED)
    return ATTEMPTS - job.retries_left - (1 if waits else 0)


def arguments_of(job: Job) -> dict[str, Any]:
    """The keyword arguments of a job of ours, also of one that was enqueued from the shell; of others none."""
    try:
        if job.func_name not in (TRAIN, REGISTER):
            return {}
        return {**dict(zip(ARGUMENTS, job.args, strict=False)), **job.kwargs}
    except (DeserializationError, TypeError):
        return {}


def repetition_of(job: Job) -> dict[str, Any]:
    """The keyword arguments of the repetition of a run; of other jobs none."""
    try:
        return {**job.kwargs, "trigger": "reproduce"} if job.func_name == REPRODUCE else {}
    except (DeserializationError, TypeError):
        return {}


def _scheduled(queue: PriorityQueue, job: Job) -> datetime | None:
    try:
        return scheduled(queue).get_scheduled_time(job)
    except NoSuchJobError:  # its time has just come
        return None


def _error(job: Job, status: JobStatus) -> str:
    if status not in (JobStatus.FAILED, JobStatus.CANCELED):
        return ""
    if known := job.meta.get("error"):
        return str(known)
    result = job.latest_result()
    lines = (result.exc_string or "").strip().splitlines() if result else []
    return re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", lines[-1]) if lines else "unknown"


def _time(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
