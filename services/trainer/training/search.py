"""Carry out a search: claim one trial after the other, judge it, and record what came of it in a run of its own.

The process that trains works on trials itself and so needs nobody else; helpers in other workers do the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rq.timeouts import BaseTimeoutException

from modelmill.errors import InvalidRequest, printable, sentence, traced
from modelmill.state.runs import Run, new_run_id
from modelmill.times import utc_now
from services.trainer.jobs.run_record import parameters
from services.trainer.training.rows import Rows
from services.trainer.training.sharing import Board, TrialState
from services.trainer.training.split import Folds
from services.trainer.training.study import Params, Study, Tried

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Seconds between two looks at trials that others have in hand."""


@dataclass(frozen=True)
class TrialRunner:
    """One of the processes that work on a search."""

    study: Study
    board: Board
    rows: Rows
    folds: Folds
    job: str
    """The id of its RQ job."""
    lease: str
    ids: Iterator[str] = field(default_factory=lambda: iter(new_run_id, ""))
    """Of the runs of its trials."""

    def work(self, began: Callable[[Run], None], ended: Callable[[], None]) -> None:
        """Work on trials until none is left to claim; tells of each when it begins and when it has ended.

        Raises:
            RunEnded: where the search was ended, or this process has lost its lease.
        """
        while child := self.board.claim(self._child()):
            began(child)
            self._try(child)
            ended()

    def finish(self, began: Callable[[Run], None], ended: Callable[[], None]) -> dict[int, TrialState]:
        """Work until every trial has ended, taking over those of processes that were killed; the states of all.

        Raises:
            RunEnded: as `work` does.
        """
        while True:
            self.work(began, ended)
            ended()
            if self.board.counts().ended == self.board.total:
                return self.board.states()
            time.sleep(POLL_SECONDS)

    def params(self, number: int) -> Params:
        """The parameters of a trial that is to begin or has succeeded."""
        arm, _ = self.study.numbers[number]
        if not arm.proposals.remembered:
            return self.study.propose(number, [])
        states = self.board.states()
        if number in states and (kept := states[number].params) is not None:
            return kept
        earlier = [
            Tried(state.params, state.score)
            for other in self.study.same_arm(number)
            if (state := states.get(other)) and state.ended and state.params is not None
        ]
        return self.study.propose(number, earlier)

    def _child(self) -> Run:
        parent = self.board.parent
        return Run(
            id=next(self.ids), model=parent.model, parent=parent.id, stage="fit", started=utc_now(), trigger="search",
            by=parent.by, job=self.job, lease=self.lease, features=parent.features, rows_train=parent.rows_train,
            data_fingerprint=parent.data_fingerprint, definitions=parent.definitions, git_commit=parent.git_commit,
            metric=self.study.metric,
        )  # fmt: skip

    def _try(self, child: Run) -> None:
        number = child.trial or 0
        arm, _ = self.study.numbers[number]
        params, scores, begun = None, None, time.perf_counter()
        try:
            params = self.params(number)
            estimator = self.study.make(number, params)
            child = replace(child, estimator=shown(estimator), params=parameters(estimator) | {"candidate": arm.name})
            scores = self.study.judge(estimator, self.rows, self.folds)
            child = replace(child, status="succeeded", stage="done", metrics=metrics(self.study.metric, scores))
        except BaseTimeoutException:
            raise  # the job's time is up, not the trial's
        except Exception as error:
            child = replace(child, status="failed", error=sentence(error), traceback=traced(error))
            log.warning("trial %d of run %s failed: %s", number, child.parent, child.error)
        seconds = {"fit": round(time.perf_counter() - begun, 6)}
        self.board.record(
            replace(child, finished=utc_now(), seconds=seconds),
            float(np.mean(scores)) if child.status == "succeeded" and scores else None,
            params if arm.proposals.remembered else None,
        )


def best(states: dict[int, TrialState]) -> int:
    """The number of the trial with the greatest score; of equal ones the first.

    Raises:
        InvalidRequest: where all have failed.
    """
    scores = {number: state.score for number, state in states.items() if state.score is not None}
    if not scores:
        first = states[min(states)]
        raise InvalidRequest(
            f"all {len(states)} trials failed; the first: {first.error} (run {first.run})", trials=len(states)
        )
    return max(scores, key=lambda number: (scores[number], -number))


def metrics(metric: str, scores: list[float]) -> dict[str, float]:
    """Mean, standard deviation and each fold's score, as a run records them."""
    folds = {f"{metric}_fold_{number}": score for number, score in enumerate(scores, start=1)}
    return {metric: float(np.mean(scores)), f"{metric}_std": float(np.std(scores)), **folds}


def shown(estimator: Any) -> str:
    """An estimator as scikit-learn prints it."""
    return printable(estimator, 10_000, lambda one: one.__repr__(N_CHAR_MAX=10_000))
