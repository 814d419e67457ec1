"""What a worker does that helps with the search of another's training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from threading import Event as Flag
from threading import Thread
from typing import IO, Any

import orjson
from redis.client import Pipeline
from rq import Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from modelmill.errors import Conflict, RunEnded, UnknownName
from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, lease_of, new_run_id, require_lease
from modelmill.storage import Storage
from services.trainer.jobs.journal import KEPT_SECONDS
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.view import TRIAL
from services.trainer.training import sharing
from services.trainer.training.rows import Rows
from services.trainer.training.search import TrialRunner
from services.trainer.training.sharing import Board
from services.trainer.training.split import Folds
from services.trainer.training.study import Study

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Seconds between two looks whether the search goes on."""


def help_search(
    registry: Registry,
    storage: Storage,
    queue: TrainingQueue,
    parent: Run,
    study: Study,
    read: Callable[[IO[bytes]], Rows],
    job: Job,
) -> dict[str, Any]:
    """Work on trials of the search of `parent` until none is left to begin, or the search has ended.

    Args:
        read: reads all rows of a frame.
        job: the job that helps, which is canceled when the search ends before its trial does.

    Returns:
        The number of trials that were carried out.

    Raises:
        RunEnded: where this process has lost its lease.
    """
    done = 0

    def began(child: Run) -> None:
        job.meta |= {"run": child.id, "stage": child.stage}

        def note(pipe: Pipeline) -> None:
            require_lease(pipe, child)
            pipe.multi()
            pipe.hset(job.key, "meta", orjson.dumps(job.meta))

        registry.redis.transaction(note, *lease_of(child))

    def ended() -> None:
        nonlocal done
        done += 1

    def stop(reason: str) -> None:
        with suppress(Conflict):  # it has just ended by itself
            queue.cancel(job.id, registry, by=reason)

    try:
        train, pairs = sharing.rows(storage, parent)
        rows = read(sharing.frame(storage, parent)).take(train)
        board = Board(registry.redis, parent, len(study.numbers))
        # The first of its runs is the one that its worker keeps the log of.
        ids = chain(filter(None, [getattr(job, "run", "")]), iter(new_run_id, ""))
        worker = TrialRunner(study, board, rows, Folds(pairs, "as the search"), job.id, getattr(job, "lease", ""), ids)
        with only_while(registry, parent, stop):
            worker.work(began, ended)
    except (FileNotFoundError, RunEnded) as error:
        if not over(registry, parent):
            raise
        log.info("the search of run %s is over: %s", parent.id, error)
    return {"run": parent.id, "trials": done}


@contextmanager
def only_while(registry: Registry, parent: Run, stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` with the reason as soon as the search of `parent` is over, as long as the block goes on."""
    left = Flag()

    def look() -> None:
        while not left.wait(POLL_SECONDS):
            try:
                if reason := over(registry, parent):
                    stop(reason)
                    return
            except AWAY as error:
                log.warning("cannot see whether run %s goes on: %s", parent.id, error)

    thread = Thread(target=look, name="search", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def over(registry: Registry, parent: Run) -> str:
    """Why a search is over; empty while it goes on."""
    try:
        run = registry.runs.get(parent.id)
    except UnknownName:
        return f"the end of its search: run {parent.id} was deleted"
    if run.status != "running":
        return f"the end of its search: run {run.id} {run.status}{f', {run.error}' if run.error else ''}"
    if run.lease and not registry.redis.exists(run.lease):
        return f"the end of its search: the worker of run {run.id} was lost"
    return ""


# --- the other workers, asked to help with a search


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
