"""A job: as people see it, and whether it is tried again."""

from __future__ import annotations

import errno
import re
import traceback
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

import httpx
from rq import Queue
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry

from modelmill.declare.user_code import UserCode
from modelmill.errors import PackageError, RequestFailed, RunEnded, Unavailable
from modelmill.state.connections import AWAY
from modelmill.times import iso

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


def view(queue: Queue, job: Job) -> JobView:
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


def _scheduled(queue: Queue, job: Job) -> datetime | None:
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


def scheduled(queue: Queue) -> ScheduledJobRegistry:
    """The jobs that wait for their time, by that time (seconds since 1970)."""
    return ScheduledJobRegistry(queue=queue)  # type: ignore[no-untyped-call]


# --- which faults may pass by themselves, and how long to wait before a training is tried again.
#
# Redis, the feature service or the storage may be away for a while. What is wrong with the data or the code stays
# wrong: trying that again would only hide it. So is whatever comes out of the code of the definitions file, which may
# well raise a `ConnectionError` of its own.

ATTEMPTS = 3
"""How often a training is begun before it has failed."""
FIRST_PAUSE = 4.0
"""Seconds before the second attempt; each further pause is four times as long."""
LONGEST_PAUSE = 60.0
PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EIO",
        "EMFILE", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENFILE", "ENOBUFS", "ENOSPC", "EPIPE", "EREMOTEIO",
        "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Numbers of the errors of disks, networks and shared folders that may pass; a missing file or permission does not."""


def may_be_tried_again(error: BaseException | None) -> bool:
    """Whether the same training may go well a little later."""
    if isinstance(error, PackageError) or (error is not None and _from_definitions(error)):
        return False
    if isinstance(error, RequestFailed):
        return error.http_status >= 500 or error.http_status == 429
    if isinstance(error, (*AWAY, Unavailable, RunEnded, httpx.TransportError, TimeoutError, ConnectionError)):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


def _from_definitions(error: BaseException) -> bool:
    """Whether the user's code, the definitions file or a module beside it, has a part in it."""
    loaders = (frame.f_globals.get("__loader__") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(isinstance(loader, UserCode) for loader in loaders)


def pause(attempt: int, random: Random) -> float:
    """Seconds to wait after `attempt` (1 is the first): longer each time, and never the same for two jobs, so that what
    was away does not get all of them at once when it is back."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 4.0 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)
