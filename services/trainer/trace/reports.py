"""Reports of repeated runs: each a file beside its run, `runs/{model}/{run}/reproduced-{time}.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from modelmill.errors import Conflict
from modelmill.state.runs import Run, folder
from modelmill.storage import Storage
from services.trainer.trace.compare import Check

REPORT = "reproduced-"
ELSEWHERE = ("registered", "manual log")
"""Triggers of runs whose fit nobody here has seen."""


@dataclass(frozen=True)
class Reproduction:
    """What came of a repetition."""

    run: str
    model: str
    time: str
    by: str
    job: str
    equal: bool
    """Whether data, metrics and predictions all are."""
    checks: list[Check]
    reasons: list[str]
    """What is not as it was when the run was made."""


def require_repeatable(run: Run) -> None:
    """Refuse a run that cannot be repeated.

    Raises:
        Conflict: saying why not.
    """
    if run.status != "succeeded":
        raise Conflict(f"run {run.id} is {run.status}; expected one that succeeded", run=run.id)
    if run.parent:
        raise Conflict(f"run {run.id} is a trial of the search of run {run.parent}; repeat that one", run=run.id)
    if run.trigger in ELSEWHERE:
        raise Conflict(
            f"run {run.id} was fitted elsewhere ({run.trigger}); only what was trained here can be repeated", run=run.id
        )
    if not run.history:
        raise Conflict(
            f"run {run.id} does not say at which position of the history its frame was made; train again", run=run.id
        )


def reports(storage: Storage, run: Run) -> list[dict[str, Any]]:
    """The reports of a run's repetitions, newest first."""
    names = storage.names(folder(run.model, run.id), ".json")
    own = [name for name in names if name.rpartition("/")[2].startswith(REPORT)]
    return [orjson.loads(storage.read(name)) for name in reversed(own)]


def write(storage: Storage, report: Reproduction) -> None:
    """Keep a report."""
    stamp = report.time.replace(":", "").replace("-", "")
    name = f"{folder(report.model, report.run)}/{REPORT}{stamp}.json"
    storage.write(name, orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2))
