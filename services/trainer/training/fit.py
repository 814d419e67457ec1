"""The stage `fit` of a training: search what is to be searched, then fit the winner on all training rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from modelmill.declare.declarations import Model
from modelmill.errors import InvalidRequest
from modelmill.state.runs import Run, folder
from modelmill.storage import Storage
from services.trainer.jobs.run_record import RunRecord, parameters
from services.trainer.training import sharing
from services.trainer.training.helper import Crew
from services.trainer.training.rows import Rows
from services.trainer.training.search import TrialRunner, best, shown
from services.trainer.training.sharing import Board, TrialState
from services.trainer.training.split import FoldConstraints, Folds, make_folds
from services.trainer.training.steps import seed_process
from services.trainer.training.study import Params, Study

TABLE = "trials.json"
CHOSEN = ("candidate", "trial", "cv")
"""What the parameters of a run say of its search."""


@dataclass(frozen=True)
class Fitting:
    """What the stage needs beside the study and the rows."""

    record: RunRecord
    storage: Storage
    recipe: Model
    crew: Crew | None
    """None where nobody can help, such as outside a worker."""


def fit(fitting: Fitting, study: Study, rows: Rows, train: np.ndarray, constraints: FoldConstraints, seed: int) -> Any:
    """The fitted estimator of a model; the run records which, its parameters, and the trials that led to it.

    Args:
        rows: those to train on.
        train: their numbers in the frame.

    Raises:
        InvalidRequest: where every trial failed, or the rows cannot be parted as the model's `cv` says.
    """
    record, estimator = fitting.record, study.estimator
    chosen: dict[str, str] = {}
    if study.tries:
        folds = make_folds(fitting.recipe.search.cv, rows.inputs, rows.label, constraints, seed)
        estimator, chosen = _search(fitting, study, rows, train, folds)
    record.note(estimator=shown(estimator), params=record.run.params | parameters(estimator) | chosen)
    seed_process(seed)  # trials have drawn, as many as this process happened to carry out
    return rows.fit(estimator)


def fit_again(record: RunRecord, storage: Storage, study: Study, rows: Rows, recorded: Run) -> Any:
    """The estimator that a run has settled on, fitted again; what it tried before is not tried again.

    Raises:
        InvalidRequest: where the table of its trials is gone, from which alone it is known.
    """
    estimator = study.estimator
    chosen = {name: recorded.params[name] for name in CHOSEN if name in recorded.params} if study.tries else {}
    if study.tries:
        number = int(chosen["trial"])
        arm, _ = study.numbers[number]
        kept = arm.proposals.remembered
        estimator = study.make(number, _proposed(storage, recorded, number) if kept else study.propose(number, []))
    record.note(estimator=shown(estimator), params=parameters(estimator) | chosen)
    seed_process(recorded.seed)
    return rows.fit(estimator)


def _proposed(storage: Storage, run: Run, number: int) -> Params:
    """The parameters of a trial that nobody could propose again."""
    name = f"{folder(run.model, run.id)}/{TABLE}"
    try:
        trials = orjson.loads(storage.read(name))["trials"]
    except FileNotFoundError:
        raise InvalidRequest(f"run {run.id} has tried parameters that are known no more: there is no {name}") from None
    found: Params = next(trial["proposed"] for trial in trials if trial["trial"] == number)
    return found


def _search(fitting: Fitting, study: Study, rows: Rows, train: np.ndarray, folds: Folds) -> tuple[Any, dict[str, str]]:
    """The estimator that did best, not fitted, and what the run's parameters say of the search."""
    record, total = fitting.record, len(study.numbers)
    run = record.run
    board = Board(record.registry.redis, run, total)
    worker = TrialRunner(study, board, rows, folds, run.job, run.lease)
    record.note(trials=total)
    with _shared(fitting, run, train, folds):
        states = worker.finish(lambda child: None, lambda: _progress(record, board))
    _keep_table(fitting, study, folds, states)
    try:
        number = best(states)
    except InvalidRequest as error:
        error.add_note(record.registry.runs.get(states[1].run).traceback)
        raise
    arm, _ = study.numbers[number]
    said = {"candidate": arm.name, "trial": str(number), "cv": folds.description}
    return study.make(number, worker.params(number)), said


@contextmanager
def _shared(fitting: Fitting, run: Run, train: np.ndarray, folds: Folds) -> Iterator[None]:
    """Let other workers help, where there are any, until the block ends."""
    if fitting.crew is None:
        yield
        return
    try:
        sharing.keep_rows(fitting.storage, run, train, folds.pairs)
        with fitting.crew.helping(run, fitting.record.run.trials):
            yield
    finally:
        sharing.remove(fitting.storage, run)


def _progress(record: RunRecord, board: Board) -> None:
    counts = board.counts()
    if (counts.ended, counts.failed) != (record.run.trials_ended, record.run.trials_failed):
        record.note(trials_ended=counts.ended, trials_failed=counts.failed)
        record.progress(counts.ended / (board.total + 1))  # the winner's fit on all rows is one more


def _keep_table(fitting: Fitting, study: Study, folds: Folds, states: dict[int, TrialState]) -> None:
    """Write what came of every trial to the run's files; `proposed` are parameters that nobody could propose again."""
    run, registry = fitting.record.run, fitting.record.registry
    found = {child.id: child for child in registry.runs.trials(run.id)}
    table = []
    for number, state in states.items():
        child = found[state.run]
        table.append(
            {
                "trial": number,
                "candidate": study.numbers[number][0].name,
                "status": state.status,
                "score": state.score,
                "metrics": child.metrics,
                "params": child.params,
                "proposed": state.params,
                "seconds": child.seconds.get("fit"),
                "run": state.run,
                "error": state.error,
            }
        )
    content = {"metric": study.metric, "cv": folds.description, "trials": table}
    fitting.storage.write(f"{folder(run.model, run.id)}/{TABLE}", orjson.dumps(content, option=orjson.OPT_INDENT_2))
