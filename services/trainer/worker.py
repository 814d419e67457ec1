"""Run a worker: `python -m services.trainer.worker`. It carries out trainings, one at a time, each in a forked process.

What it adds to RQ's worker:

- It runs the functions of `view.FUNCTIONS` only; a job's function is checked by name before anything is imported.
- It claims a job in one transaction: taken off the queue, started, leased. A job that someone cancelled or took
  meanwhile is left alone, and no moment is left in which a killed worker loses one.
- The lease lasts 10 s and is renewed every 2 s; idle workers and the trainer look for expired ones every 2 s. So after
  SIGKILL of a worker its job waits again, and its run is closed, within 15 s; after SIGKILL of the process that trains,
  at once. That process dies with its worker (on Linux), and when the lease is gone, so that no job is carried out twice
  at a time; and whatever it records, it records together with a look at the lease.
- A job is begun three times at most. An error in data or code is final; what may pass is tried again after a pause.
- The time limit is kept from outside: code cannot catch it.
- A cancelled job is stopped at once.
- What the process prints goes to the job's journal, and to the run's log in the storage.
- While Redis is away a training goes on, and an idle worker waits for it.

SIGTERM lets the training in hand end first; a second SIGTERM stops it.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from redis.client import Pipeline
from redis.exceptions import WatchError
from rq import Queue, Worker
from rq.exceptions import DeserializationError, StopRequested
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import get_version, now
from rq.worker.base import WorkerStatus

from modelmill import logs
from modelmill.errors import (
    Conflict,
    InvalidRequest,
    ModelmillError,
    RunEnded,
    Unavailable,
    UnknownName,
    sentence,
    traced,
)
from modelmill.state import keys
from modelmill.state.connections import AWAY, Redis, connect
from modelmill.state.registry import Registry
from modelmill.state.runs import new_run_id
from modelmill.storage import Storage
from services.trainer.jobs import outcome, process
from services.trainer.jobs.journal import KEPT_SECONDS, Journal, archive
from services.trainer.jobs.opening import Opener
from services.trainer.jobs.process import Horse, Unlimited, Usage
from services.trainer.jobs.recovery import LEASE_SECONDS, SWEEP_SECONDS, recover
from services.trainer.jobs.view import ATTEMPTS, FUNCTIONS, attempt_of, may_be_tried_again, pause
from services.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)

RENEWAL = 2
"""Seconds between two renewals of a lease."""
DEAD_AFTER_SECONDS = 15
"""Seconds after which a worker that gives no sign counts as dead."""
OLDEST_REDIS = (6, 2, 0)
"""Before it there is no BLMOVE, and RQ would pop jobs into nowhere."""


class TrainJob(Job):
    """A job that can run nothing but the functions of ours: no other one, no method, no callback."""

    success_callback = failure_callback = stopped_callback = None
    lease = ""
    """The key that its worker keeps from expiring while this attempt goes on."""
    run = ""
    """The id for the run that this attempt makes."""
    opener: Opener | None = None
    """Opens packages beside the process of this attempt."""
    before: Sequence[str] = ()
    """The runs of the attempts before, some of which may not have begun."""

    @property
    def func(self) -> Any:
        """The function, imported once its name is known to be the right one.

        Raises:
            InvalidRequest: for any other.
        """
        if self.func_name not in FUNCTIONS or self.instance is not None:
            raise InvalidRequest(
                f"function {self.func_name!r} may not run here; expected one of {', '.join(FUNCTIONS)}"
            )
        if self._success_callback_name or self._failure_callback_name or self._stopped_callback_name:
            raise InvalidRequest("a job with callbacks may not run here")
        return super().func

    def _deserialize_data(self) -> None:
        try:
            super()._deserialize_data()  # type: ignore[no-untyped-call]
        except DeserializationError as error:
            raise DeserializationError("the job is not JSON; enqueue it with `--serializer json`") from error


class TrainWorker(Worker):
    """Carries out trainings; see the module."""

    job_class = TrainJob
    death_penalty_class = Unlimited
    max_connection_wait_time = 5.0

    def __init__(self, redis: Redis, registry: Registry, storage: Storage) -> None:
        if get_version(redis) < OLDEST_REDIS:
            raise Unavailable(f"Redis is {'.'.join(map(str, get_version(redis)))}; expected at least 6.2")
        super().__init__(
            [keys.QUEUE],
            name=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}",
            connection=redis,
            serializer=JSONSerializer,
            default_result_ttl=KEPT_SECONDS,
            maintenance_interval=SWEEP_SECONDS,
        )
        self.registry = registry
        self.storage = storage
        self._horse: Horse | None = None

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal has asked it to."""
        return self._shutdown_requested_date is not None

    # --- idle: wake every SWEEP_SECONDS seconds, show that it lives, put right what others left

    @property
    def dequeue_timeout(self) -> int:
        return SWEEP_SECONDS

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        super().heartbeat(DEAD_AFTER_SECONDS, pipeline)

    def run_maintenance_tasks(self) -> None:
        try:
            recover(self.queues[0], self.registry, self.storage)
        except OSError as error:
            log.warning("cannot tidy the storage: %s", error)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def _pubsub_exception_handler(self, error: Exception, pubsub: Any, thread: Any) -> None:
        log.warning("cannot hear commands, trying again: %s", error)
        time.sleep(2.0)

    # --- busy

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Claim the job, then carry it out in a process of its own."""
        execution = self._claim(job, queue)
        if execution is None:
            self.log.info("job %s is no longer to be done", job.id)
            return
        self.monitor_work_horse(job, queue, execution)
        self.set_state(WorkerStatus.IDLE)

    def _claim(self, job: Any, queue: Queue) -> Execution | None:
        """Make the job ours for the time of a lease, or None where it is not waiting any more."""
        taken = queue.intermediate_queue.key
        while True:
            try:
                with self.connection.pipeline() as pipe:
                    pipe.watch(taken, job.key)
                    waits = pipe.hget(job.key, "status") == b"queued" and pipe.lpos(taken, job.id) is not None
                    pipe.multi()
                    pipe.lrem(taken, 1, job.id)
                    if not waits:
                        pipe.execute()
                        return None
                    execution = self._begin(job, pipe)
                    pipe.execute()
            except WatchError:
                continue
            job.lease = execution.key
            self.executions[execution.id] = execution
            return execution

    def _begin(self, job: Any, pipe: Pipeline) -> Execution:
        """Queue the commands by which an attempt begins."""
        if job.retries_left is None:
            job.retries_left = ATTEMPTS - 1
        before = [*job.meta.get("before", ()), job.meta.get("run")]
        job.run, job.before = new_run_id(), [run for run in before if run][-ATTEMPTS:]
        kept = {"run": job.run, "before": job.before, "reason": job.meta.get("reason", "")}
        job.meta = kept
        pipe.hset(job.key, mapping={"retries_left": job.retries_left, "meta": job.serializer.dumps(kept)})
        pipe.persist(job.key)
        pipe.sadd(keys.OPEN_JOBS, job.id)  # one from the shell is not there yet
        execution = Execution.create(job, LEASE_SECONDS, pipeline=pipe, worker_name=self.name)
        job.prepare_for_execution(self.name, pipeline=pipe)
        self.set_state(WorkerStatus.BUSY, pipeline=pipe)
        return execution

    def monitor_work_horse(self, job: Any, queue: Queue, execution: Execution) -> None:
        """Let a process do the job; renew its lease and keep its log meanwhile, and the time limit."""
        journal = Journal(self.connection, job.id, execution.key)
        job.started_at = now()
        job.opener = opener = Opener()
        process = self._horse = Horse.fork(journal, job.run, partial(self._carry_out, job, queue, execution))
        try:
            opener.await_asking(process)
            limit = self._supervise(process, job, execution)
        finally:
            self._horse = None
            self.executions.pop(execution.id, None)
            status, usage = process.end()
            opener.close()
        process.output.ship(fenced=not self._ended_by_itself(job))
        if status != 0 or self._is_ours(job, execution):  # it may have ended well and recorded nothing
            self._record_ended(job, queue, execution, status, limit, usage)
        self._keep_log(journal, job)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """What RQ does at a command to stop the job, and at a second SIGTERM."""
        if (process := self._horse) is not None:
            process.kill()

    def _supervise(self, process: Horse, job: Job, execution: Execution) -> int | None:
        """Return when the process has ended; the time limit in seconds, if it was killed for that."""
        begun, limit = time.monotonic(), None
        while not process.wait(min(RENEWAL, _left(job, begun))):
            if _left(job, begun) <= 0:
                limit = int(job.timeout or 0)
                process.kill()
            elif not self._renew(job, execution):
                process.kill()
        return limit

    def _renew(self, job: Job, execution: Execution) -> bool:
        """Renew the lease; False where the job was cancelled, deleted, or given to another worker meanwhile.

        The time limit is read again, too: the process learns from the definitions what the model says of it.
        """

        def renew(pipe: Pipeline) -> bool:
            ours = outcome.is_ours(pipe, job, execution)
            pipe.multi()
            if ours:
                self.heartbeat(pipeline=pipe)
                execution.heartbeat(job.started_job_registry, LEASE_SECONDS, pipeline=pipe)
                job.heartbeat(now(), LEASE_SECONDS, pipeline=pipe)
            return ours

        try:
            if not self.connection.transaction(renew, *outcome.claim(job, execution), value_from_callable=True):
                return False
            job.timeout = int(self.connection.hget(job.key, "timeout") or job.timeout or 0)
        except AWAY as error:
            log.warning("cannot renew the lease on job %s: %s", job.id, error)
        return True

    def _is_ours(self, job: Job, execution: Execution) -> bool:
        with self.connection.pipeline() as pipe:
            pipe.watch(*outcome.claim(job, execution))
            return outcome.is_ours(pipe, job, execution)

    def _ended_by_itself(self, job: Any) -> bool:
        """Whether the run has ended, and not because its lease was gone."""
        with suppress(UnknownName):
            return self.registry.runs.get(job.run).status not in ("running", "lost")
        return False

    def _keep_log(self, journal: Journal, job: Any) -> None:
        """Write the log of the run into the storage, where there is such a run, and say that no more of it comes."""
        try:
            run = self.registry.runs.get(job.run)
            archive(self.storage, journal, run.model, run.id)
        except (UnknownName, OSError) as error:
            log.warning("the log of run %s is not kept: %s", job.run, error)
        journal.close()

    # --- the outcome

    def _fail(
        self, job: Job, queue: Queue, execution: Execution, error: str, traceback: str, wait: float | None
    ) -> None:
        def count(pipe: Pipeline) -> None:
            self._count(job, pipe, failed=True)

        self.connection.delete(keys.STORAGE_SWEPT)  # the run may have left a package
        ours = outcome.fail(job, queue, execution, count, error=error, traceback=traceback, pause=wait)
        if ours and job.get_status(refresh=False) == JobStatus.FAILED:
            self._enqueue_dependents_safely(queue, job)

    def _count(self, job: Job, pipe: Pipeline, *, failed: bool) -> None:
        if failed:
            self.increment_failed_job_count(pipe)
        else:
            self.increment_successful_job_count(pipe)
        if job.started_at and job.ended_at:
            self.increment_total_working_time(job.ended_at - job.started_at, pipe)

    def _record_ended(
        self, job: Any, queue: Queue, execution: Execution, status: int, limit: int | None, usage: Usage
    ) -> None:
        """Record that the process ended without a word: what came from outside may pass, so that it is tried again."""
        job.get_meta()  # what the dead process noted, so that it is not overwritten
        job.ended_at = now()
        # By a command of RQ's, or by the cancelation that has closed all.
        stopped = limit is None and self._stopped_job_id == job.id
        self._stopped_job_id = None
        wait: float | None = None
        if limit is not None:
            reason = f"time limit of {limit} s: the training was stopped"
        elif stopped:
            reason = "stopped by a command to its worker"
        elif process.from_outside(status):
            reason, wait = f"its process ended unexpectedly: {process.how(status)}", 0.0
        else:
            reason = f"its process ended itself before the training was over: {process.how(status)}"
        with suppress(UnknownName, RunEnded):
            run = process.with_usage(self.registry.runs.get(job.run), usage)
            if run.status == "succeeded":  # the next attempt will find its version
                reason, wait = f"{reason}, after it had registered version {run.version}", 0.0
            # The cancelation has taken the lease, but whose process it was is certain.
            self.registry.runs.record_usage(replace(run, lease="") if run.status == "cancelled" else run)
            if stopped:
                self.registry.runs.cancel(run, "rq")
            elif wait is None:
                self.registry.runs.fail(run, reason, "")
            else:
                self.registry.runs.lose(run, reason)
        if stopped and self._is_ours(job, execution):
            with suppress(Conflict):
                outcome.cancel(job, queue, "cancelled by rq")
        self._fail(job, queue, execution, reason, "", wait)

    # --- in the process that trains

    def _carry_out(self, job: Any, queue: Queue, execution: Execution) -> None:
        """Carry out the job and record how that went; die with the worker, which alone renews the lease, or with the
        lease.

        An error that may pass is tried again. What is raised here says that nothing was recorded.
        """
        process.die_with(self.pid or os.getppid())
        process.die_without(self.connection, job.lease)
        logging.getLogger("rq.worker").setLevel(logging.WARNING)  # the log is the training's own
        self.setup_work_horse_signals()  # type: ignore[no-untyped-call]
        random.seed()  # no two jobs draw the same
        self._is_horse = True
        try:
            job.perform()
            job.ended_at = now()
            ended = outcome.succeed(job, queue, execution, lambda pipe: self._count(job, pipe, failed=False))
        except BaseException as error:
            job.ended_at = now()
            log.error("%s", traced(error))
            wait: float | None = None
            if isinstance(error, RunEnded):
                wait = 0.0
            elif may_be_tried_again(error):
                wait = pause(attempt_of(job), random.Random())
            self._fail(job, queue, execution, sentence(error), traced(error), wait)
        else:
            if ended:
                self._enqueue_dependents_safely(queue, job)


def _left(job: Job, begun: float) -> float:
    """Seconds that are left of a job's time limit; RQ knows -1 as none."""
    limit = job.timeout
    if limit is None or limit <= 0:
        return RENEWAL
    return float(max(0.0, begun + limit - time.monotonic()))


def main() -> None:
    """Work until SIGTERM. While Redis is away, try again every second."""
    logs.configure("worker")
    try:
        settings = TrainerSettings.read()
        if settings.train_openmp_wait:  # read by OpenMP when it is loaded, so before scikit-learn is
            os.environ["OMP_WAIT_POLICY"] = settings.train_openmp_wait
        for function in FUNCTIONS:  # so that each job starts in a process with all that it needs
            importlib.import_module(function.rpartition(".")[0])
        storage = Storage(settings.storage_url)
    except ModelmillError as error:
        sys.exit(str(error))
    registry = Registry(connect(settings.redis_url, timeout=settings.redis_timeout))
    while True:
        try:
            redis = connect(settings.redis_url, timeout=settings.redis_timeout, text=False)
            worker = TrainWorker(redis, registry, storage)
            gc.collect()
            gc.freeze()  # what is loaded stays, and a collection in the forked process would copy all of its pages
            worker.work()
            if worker.asked_to_stop:
                return
        except AWAY as error:
            log.warning("Redis did not answer, trying again: %s", error)
        except StopRequested:
            return
        except Unavailable as error:
            sys.exit(str(error))
        time.sleep(1.0)


if __name__ == "__main__":
    main()
