"""The queue of trainings: RQ's queue `train`, so that `rq info` and rq-dashboard see the same jobs.

Jobs are JSON, never pickles, and name their function as text, so that nothing of it is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.client import Pipeline
from rq import Queue
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.serializers import JSONSerializer

from modelmill.errors import Conflict, QueueFull, RunEnded, UnknownName
from modelmill.state import keys
from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from services.trainer.jobs import outcome
from services.trainer.jobs.journal import KEPT_SECONDS
from services.trainer.jobs.view import (
    ENDED,
    REGISTER,
    REPRODUCE,
    TRAIN,
    JobView,
    arguments_of,
    scheduled,
    view,
)

BACKFILL = "backfill"
"""What a training as of a past time says that it was triggered by."""
MAX_LISTED_JOBS = 50
"""Ended jobs of each kind that a list shows."""


@dataclass(frozen=True)
class Requested:
    """The job that a request for a training led to; `existing` where it waited or ran already."""

    job: str
    existing: bool


class TrainingQueue:
    """Trainings that wait, run or have ended, in `redis` (a client that does not decode)."""

    def __init__(self, redis: Redis, *, timeout: int = 3600, limit: int = 1000) -> None:
        self.redis = redis
        self.rq = Queue(keys.QUEUE, connection=redis, serializer=JSONSerializer)
        self.timeout = timeout
        self.limit = limit

    def request(
        self,
        model: str,
        data: str,
        *,
        trigger: str = "manual",
        by: str = "",
        start: str | None = None,
        end: str | None = None,
        timeout: int | None = None,
    ) -> Requested:
        """The training of `model` on this span that waits already, or runs on the same data; else a new one.

        `data` is the position of the data now, see `snapshot`. Of any number of requests at once one enqueues.

        Raises:
            QueueFull: where `limit` trainings wait.
        """

        def ask(pipe: Pipeline) -> Requested:
            if there := self.joinable(pipe, model, start, end, data):
                pipe.multi()
                return Requested(there, existing=True)
            pipe.multi()
            job = self.enqueue(model, trigger=trigger, by=by, start=start, end=end, timeout=timeout, pipeline=pipe)
            return Requested(job, existing=False)

        requested: Requested = self.redis.transaction(ask, keys.TRAININGS, value_from_callable=True)
        return requested

    def joinable(self, pipe: Pipeline, model: str, start: str | None, end: str | None, data: str) -> str | None:
        """The job that a request for this training joins, if there is one; `pipe` watches `keys.TRAININGS`.

        One that waits has read nothing yet. One that runs is joined as long as it has not read other data than there
        are now. That a job has ended, in whatever way, frees its place: there is nothing to release.
        """
        found = pipe.hget(keys.TRAININGS, _place(model, start, end))
        if found is None:
            return None
        try:
            job = Job.fetch(found.decode(), connection=self.redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return None
        status = job.get_status(refresh=False)
        if status in ENDED or (status == JobStatus.STARTED and job.meta.get("data", data) != data):
            return None
        return str(job.id)

    def enqueue(
        self,
        model: str,
        *,
        trigger: str = "manual",
        by: str = "",
        start: str | None = None,
        end: str | None = None,
        timeout: int | None = None,
        pipeline: Pipeline | None = None,
    ) -> str:
        """Add a training whatever waits or runs, and return its job's id; further requests for the same join it.

        With `pipeline`, which must be in MULTI, it is added when that is executed.

        Raises:
            QueueFull: where `limit` trainings wait.
        """
        pipe = self.redis.pipeline() if pipeline is None else pipeline
        arguments = {"model": model, "trigger": trigger, "by": by, "start": start, "end": end}
        description = f"train {model} ({trigger}{f' by {by}' if by else ''})"
        job = self._add(pipe, TRAIN, arguments, description, timeout=timeout)
        pipe.hset(keys.TRAININGS, _place(model, start, end), job)
        if pipeline is None:
            pipe.execute()
        return job

    def enqueue_registration(self, model: str, arguments: Mapping[str, Any], description: str) -> str:
        """Add the registration of a model that was trained elsewhere and return its job's id; none joins another.

        Raises:
            QueueFull: where `limit` jobs wait.
        """
        with self.redis.pipeline() as pipe:
            job = self._add(pipe, REGISTER, {"model": model, **arguments}, description)
            pipe.execute()
        return job

    def repeat(self, run: str, model: str, *, by: str = "", timeout: int | None = None) -> str:
        """Add a repetition of a run of `model` and return its job's id; none joins another.

        Raises:
            QueueFull: where `limit` jobs wait.
        """
        description = f"reproduce {run}{f' (by {by})' if by else ''}"
        with self.redis.pipeline() as pipe:
            job = self._add(pipe, REPRODUCE, {"run": run, "model": model, "by": by}, description, timeout=timeout)
            pipe.execute()
        return job

    def require_room(self) -> None:
        """Raise `QueueFull` where `limit` jobs wait."""
        waiting = self.rq.count
        if waiting >= self.limit:
            raise QueueFull(waiting, self.limit)

    def _add(
        self,
        pipe: Pipeline,
        function: str,
        arguments: Mapping[str, Any],
        description: str,
        *,
        timeout: int | None = None,
    ) -> str:
        self.require_room()
        job = self.rq.create_job(
            function,
            kwargs=dict(arguments),
            timeout=timeout or self.timeout,
            result_ttl=KEPT_SECONDS,
            failure_ttl=KEPT_SECONDS,
            description=description,
        )
        pipe.sadd(self.rq.redis_queues_keys, self.rq.key)
        pipe.sadd(keys.OPEN_JOBS, job.id)
        self.rq._enqueue_job(job, pipeline=pipe)  # `enqueue_job` looks at dependencies, of which there are none
        return str(job.id)

    def job(self, job_id: str) -> JobView:
        """The job of this id, or `UnknownName`."""
        return view(self.rq, self._fetch(job_id))

    def jobs(self) -> list[JobView]:
        """Jobs that wait or run, then those that ended last, newest first."""
        active = self._active()
        newest: list[str] = []
        for registry in (
            self.rq.finished_job_registry,
            self.rq.failed_job_registry,
            CanceledJobRegistry(queue=self.rq),
        ):
            newest += registry.get_job_ids(0, MAX_LISTED_JOBS - 1, desc=True, cleanup=False)
        ended = sorted(self._fetch_all(newest), key=lambda job: job.ended_at or job.created_at, reverse=True)
        return [view(self.rq, job) for job in (*reversed(active), *ended[:MAX_LISTED_JOBS])]

    def is_pending(self, model: str, *, but: str = "") -> bool:
        """Whether a training of `model` waits or runs, other than those that the trigger `but` asked for."""
        known = (arguments_of(job) for job in self._active() if job.func_name == TRAIN)
        return any(job.get("model") == model and job.get("trigger") != but for job in known)

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
            raise Conflict(f"job {job_id} has ended already: {self.job(job_id).status}", job=job_id)
        if run_id := job.get_meta().get("run"):
            try:
                registry.runs.cancel(registry.runs.get(run_id), by)
            except UnknownName:
                pass  # not recorded yet, and without its lease it will not be
            except RunEnded as ended:  # of another ending the job may begin a further attempt
                if ended.fields["ended"] == "succeeded" and job.get_status() == JobStatus.STARTED:
                    raise Conflict(f"job {job_id} has ended already: {ended.detail}", job=job_id) from None
        outcome.cancel(job, self.rq, f"cancelled{f' by {by}' if by else ''}")
        # At once; should the message be lost, its worker sees within two seconds that the job is not its any more.
        with suppress(InvalidJobOperation):  # it has never begun
            send_stop_job_command(self.redis, job_id, serializer=JSONSerializer)
        return self.job(job_id)

    def _active(self) -> list[Job]:
        """Jobs that wait or run, in the order of the queue, running ones first, those that wait for a time last."""
        running = self.rq.started_job_registry.get_job_ids(cleanup=False)
        taken = self.rq.intermediate_queue.get_job_ids()
        later = scheduled(self.rq).get_job_ids(cleanup=False)
        return self._fetch_all(dict.fromkeys([*running, *taken, *self.rq.get_job_ids(), *later]))

    def _fetch(self, job_id: str) -> Job:
        with suppress(NoSuchJobError):
            if ":" not in job_id:  # which would be the key of something else about a job
                return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)
        raise UnknownName("job", job_id, [known.job for known in self.jobs()])

    def _fetch_all(self, ids: Iterable[str]) -> list[Job]:
        found = Job.fetch_many(list(ids), connection=self.redis, serializer=JSONSerializer)
        return [job for job in found if job is not None]


def _place(model: str, start: str | None, end: str | None) -> str:
    """The field of `keys.TRAININGS` for this training."""
    return f"{model}|{start or ''}|{end or ''}"
