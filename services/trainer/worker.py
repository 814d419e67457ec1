"""Run a worker: `python -m services.trainer.worker`. It carries out trainings, one at a time, each in a forked process.

What it adds to RQ's worker:

- It runs two functions only; a job's function is checked by name before anything is imported.
- It claims a job in one transaction: taken off the queue, started, leased. A job that someone canceled or took
  meanwhile is left alone, and no moment is left in which a killed worker loses one.
- The lease lasts 10 s and is renewed every 3 s; idle workers and the trainer look for expired ones every 2 s. So after
  SIGKILL of a worker its job waits again, and its run is closed, within 15 s; after SIGKILL of the process that trains,
  at once. That process dies with its worker (on Linux), so that no job is carried out twice at a time.
- A job is begun three times at most. An error in the job itself is final.
- A canceled job is stopped at the next renewal.
- While Redis is away a training goes on, and an idle worker waits for it.

SIGTERM lets the training in hand end first; a second SIGTERM stops it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import signal
import socket
import sys
import time
from typing import Any

from redis.exceptions import WatchError
from rq import Queue, Worker
from rq.exceptions import DeserializationError, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import get_version, now
from rq.worker.base import WorkerStatus

import services.trainer.exchange.job
import services.trainer.job  # noqa: F401  here, so that each job starts with scikit-learn loaded
from modelmill import keys, logs
from modelmill.connections import AWAY, Redis, connect
from modelmill.definitions_file import load
from modelmill.errors import InvalidRequest, ModelmillError, RunEnded, Unavailable
from modelmill.registry import Registry
from services.trainer.jobs.queue import FUNCTIONS, KEPT_SECONDS
from services.trainer.jobs.recovery import ATTEMPTS, LEASE, SWEEP, recover
from services.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)

RENEWAL = 3
"""Seconds between two renewals of a lease."""
ALIVE = 15
"""Seconds after which a worker that gives no sign counts as dead."""
OLDEST_REDIS = (6, 2, 0)
"""Before it there is no BLMOVE, and RQ would pop jobs into nowhere."""
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class TrainJob(Job):
    """A job that can run nothing but the functions of ours: no other one, no method, no callback."""

    success_callback = failure_callback = stopped_callback = None
    lease = ""
    """The key that its worker keeps from expiring while this attempt goes on."""

    @property
    def func(self) -> Any:
        """The function, imported once its name is known to be the right one.

        Raises:
            InvalidRequest: for any other.
        """
        if self.func_name not in FUNCTIONS or self.instance is not None:
            raise InvalidRequest(
                f"function {self.func_name!r} may not run here; only {' and '.join(map(repr, FUNCTIONS))} may"
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
    max_connection_wait_time = 5.0

    def __init__(self, redis: Redis, registry: Registry) -> None:
        if get_version(redis) < OLDEST_REDIS:
            raise Unavailable(f"Redis is {'.'.join(map(str, get_version(redis)))}; expected at least 6.2")
        super().__init__(
            [keys.QUEUE],
            name=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}",
            connection=redis,
            serializer=JSONSerializer,
            default_result_ttl=KEPT_SECONDS,
            job_monitoring_interval=RENEWAL,
            maintenance_interval=SWEEP,
        )
        self.registry = registry

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal has asked it to."""
        return self._shutdown_requested_date is not None

    # --- idle: wake every SWEEP seconds, show that it lives, put right what others left

    @property
    def dequeue_timeout(self) -> int:
        return SWEEP

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        super().heartbeat(ALIVE, pipeline)

    def run_maintenance_tasks(self) -> None:
        recover(self.queues[0], self.registry)
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
        self.fork_work_horse(job, queue)
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
                    if job.retries_left is None:
                        job.retries_left = ATTEMPTS - 1
                    pipe.hset(job.key, "retries_left", job.retries_left)
                    pipe.persist(job.key)
                    execution = Execution.create(job, LEASE, pipeline=pipe, worker_name=self.name)
                    job.prepare_for_execution(self.name, pipeline=pipe)
                    self.set_state(WorkerStatus.BUSY, pipeline=pipe)
                    pipe.execute()
            except WatchError:
                continue
            job.lease = execution.key
            self.executions[execution.id] = execution
            return execution

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return LEASE

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Renew the lease; stop the job if it was canceled, deleted, or given to another worker meanwhile."""
        try:
            if self._is_ours(job, execution):
                super().maintain_heartbeats(job, execution)
            else:
                self.kill_horse()
        except AWAY as error:
            log.warning("cannot renew the lease on job %s: %s", job.id, error)

    def handle_job_failure(self, job: Job, queue: Queue, *args: Any, **kwargs: Any) -> None:
        """Record the failure, if the job is still ours. What the job itself raised is not tried again, but that its
        lease had expired is."""
        execution: Execution = kwargs["execution"]
        if not self._is_ours(job, execution):
            with self.connection.pipeline() as pipe:
                self.cleanup_execution(job, pipeline=pipe, execution=execution)
                pipe.execute()
            return
        if not self.is_horse:
            job.get_meta()  # what the dead process noted, so that it is not overwritten
        elif sys.exc_info()[0] is not RunEnded:
            job.retries_left = 0
        super().handle_job_failure(job, queue, *args, **kwargs)

    def _is_ours(self, job: Job, execution: Execution) -> bool:
        """Whether our claim is still in the list of started jobs, which cancelation and recovery take it off."""
        return self.connection.zscore(job.started_job_registry.key, execution.composite_key) is not None

    # --- in the process that trains

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Carry out the job, and die with the worker, which alone renews the lease."""
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.pid:  # the worker died before the line above
                os._exit(1)
        super().main_work_horse(job, queue)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Nothing: the claim has done it, and to repeat it here could undo a cancelation."""


def main() -> None:
    """Work until SIGTERM. While Redis is away, try again every second."""
    logs.configure("worker")
    try:
        settings = TrainerSettings.read()
        load(settings.definitions)
    except ModelmillError as error:
        sys.exit(str(error))
    registry = Registry(connect(settings.redis_url, timeout=settings.redis_timeout))
    while True:
        try:
            worker = TrainWorker(connect(settings.redis_url, timeout=settings.redis_timeout, text=False), registry)
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
