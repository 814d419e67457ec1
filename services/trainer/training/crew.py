"""The other workers, asked to help with a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rq import Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from modelmill.state.connections import AWAY
from modelmill.state.runs import Run
from services.trainer.jobs.journal import KEPT_SECONDS
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import TRIAL


@dataclass(frozen=True)
class Crew:
    """The workers of the queue `train`, of which the one that asks is one."""

    queue: TrainingQueue
    timeout: int
    """Seconds after which a job that helps is stopped."""

    @contextmanager
    def helping(self, run: Run, trials: int) -> Iterator[int]:
        """Ask the other workers to help with `trials` trials; yields how many were asked.

        A helper's job waits its turn in the queue; one that still waits when the block ends is taken off it.
        """
        jobs = [self._ask(run) for _ in range(min(trials - 1, Worker.count(queue=self.queue.rq) - 1))]
        try:
            yield len(jobs)
        finally:
            for job in jobs:
                with suppress(*AWAY, NoSuchJobError):
                    if job.get_status() == JobStatus.QUEUED:
                        job.delete()

    def _ask(self, run: Run) -> Job:
        return self.queue.rq.enqueue_call(
            TRIAL,
            kwargs={"run": run.id},
            timeout=self.timeout,
            result_ttl=KEPT_SECONDS,
            failure_ttl=KEPT_SECONDS,
            description=f"trials of {run.model}, run {run.id}",
        )
