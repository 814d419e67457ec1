"""What a worker does that helps with the search of another's training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event as Flag
from threading import Thread
from typing import IO, Any

from rq.job import Job

from modelmill.connections import AWAY
from modelmill.errors import RunEnded, UnknownName
from modelmill.registry import Registry
from modelmill.runs import Run
from modelmill.storage import Storage
from services.trainer.training import sharing
from services.trainer.training.board import Board
from services.trainer.training.rows import Rows
from services.trainer.training.search import Worker
from services.trainer.training.study import Study

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks whether the search goes on."""


def help_search(
    registry: Registry, storage: Storage, parent: Run, study: Study, read: Callable[[IO[bytes]], Rows], job: Job
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
    trials: list[Run] = []
    done = 0

    def ended() -> None:
        nonlocal done
        done += 1

    def began(child: Run) -> None:
        trials.append(child)
        job.meta["run"] = child.id
        job.save_meta()  # type: ignore[no-untyped-call]

    def stop() -> None:
        job.cancel()  # its worker sees it and ends this process

    try:
        train, folds = sharing.rows(storage, parent)
        rows = read(sharing.frame(storage, parent)).take(train)
        board = Board(registry.redis, parent, len(study.numbers))
        worker = Worker(study, board, rows, folds, job.id, getattr(job, "lease", ""))
        with only_while(registry, parent, lambda: trials[-1] if len(trials) > done else None, stop):
            worker.work(began, ended)
    except (FileNotFoundError, RunEnded) as error:
        if not reason_to_stop(registry, parent):
            raise
        log.info("the search of run %s is over: %s", parent.id, error)
    return {"run": parent.id, "trials": done}


@contextmanager
def only_while(
    registry: Registry, parent: Run, current: Callable[[], Run | None], stop: Callable[[], None]
) -> Iterator[None]:
    """Call `stop` as soon as the search `parent` has ended, or its process has lost its lease, while the block goes on.

    The trial in hand, which `current` returns, is closed with the reason first.
    """
    over = Flag()

    def look() -> None:
        while not over.wait(LOOK):
            try:
                reason = reason_to_stop(registry, parent)
                if reason:
                    if child := current():
                        with suppress(RunEnded):
                            registry.runs.fail(child, reason, "")
                    stop()
                    return
            except AWAY as error:
                log.warning("cannot see whether run %s goes on: %s", parent.id, error)

    thread = Thread(target=look, name="search", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def reason_to_stop(registry: Registry, parent: Run) -> str:
    """Why a search is over; empty while it goes on."""
    try:
        run = registry.runs.get(parent.id)
    except UnknownName:
        return f"run {parent.id} of its search was deleted"
    if run.status != "running":
        return f"its search {run.status}{f': {run.error}' if run.error else ''}"
    if run.lease and not registry.redis.exists(run.lease):
        return "the worker of its search was lost"
    return ""
