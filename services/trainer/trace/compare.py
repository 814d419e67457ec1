"""A run beside its repetition: what came out alike, what did not, and what may be why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson

from modelmill.errors import Conflict
from modelmill.state.runs import Run, folder
from modelmill.storage import Storage

DIGITS = 12
"""Of a fingerprint, as people see it."""
FRAME = "training frame"
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
DRAWN = (
    "the frame is equal and what was made of it is not: the model's code draws random numbers that no seed decides, or"
    " another machine or package computes otherwise"
)


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    name: str
    recorded: str
    """In the run."""
    found: str
    """When it was repeated."""
    equal: bool
    unread: bool = False
    """Whether it differs only because one of the two could not be read."""


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten of a source since a run began."""

    entities: int
    rows: int


@dataclass(frozen=True)
class Outputs:
    """What a package says of the held-out rows: [rows, ...] each."""

    arrays: Sequence[np.ndarray]
    problem: str = ""
    """Why it says nothing."""


def checks(run: Run, again: Run, stored: Outputs | None, found: Outputs) -> list[Check]:
    """What has to be equal: data, recipe, metrics and predictions; `again` is what the repetition recorded.

    `stored` is None where the run's package was pruned, so that there are no predictions to compare with.
    """
    return [
        *_data(run, again),
        _check("split", run.split, again.split),
        _check("estimator", _plain(run.estimator), _plain(again.estimator)),
        *_mapping("parameter", run.params, again.params, only_differing=True),
        *_mapping("metric", _texts(run.metrics), _texts(again.metrics)),
        _check("served by", run.runtime, again.runtime),
        *([] if stored is None else [_predictions(stored, found)]),
    ]


def _data(run: Run, again: Run) -> Iterator[Check]:
    yield from _mapping("rows of", _texts(run.source_rows), _texts(again.source_rows))
    yield _check("rows to train on", str(run.rows_train), str(again.rows_train))
    yield _check("rows held out", str(run.rows_test), str(again.rows_test))
    yield _check("rows dropped", str(run.rows_dropped), str(again.rows_dropped))
    equal = run.data_fingerprint == again.data_fingerprint
    yield Check(FRAME, run.data_fingerprint[:DIGITS], again.data_fingerprint[:DIGITS], equal)


def _predictions(stored: Outputs, found: Outputs) -> Check:
    """The answers of the stored package and of a new one to the same rows: equal bit for bit, or by how much not."""
    if stored.problem or found.problem:
        return Check("predictions", stored.problem or "made", found.problem or "made", False, unread=True)
    rows = len(found.arrays[0])
    recorded = f"{rows} rows"
    if [a.shape for a in stored.arrays] != [a.shape for a in found.arrays]:
        return Check("predictions", recorded, "of another shape", False)
    differing, most = np.zeros(rows, np.bool_), 0.0
    for one, other in zip(stored.arrays, found.arrays, strict=True):
        numeric = np.issubdtype(one.dtype, np.floating) and np.issubdtype(other.dtype, np.floating)
        apart = one != other
        if numeric:
            apart &= ~(np.isnan(one) & np.isnan(other))
            distances = np.abs(one.astype(np.float64) - other)[apart]
            most = max(most, float(np.nanmax(distances, initial=0.0)))
        differing |= apart.reshape(rows, -1).any(axis=1)
    if not differing.any():
        return Check("predictions", recorded, "equal bit for bit", True)
    return Check("predictions", recorded, f"{differing.sum()} differ, by {most:.3g} at most", False)


def reasons(run: Run, again: Run, forgotten: Mapping[str, Forgotten], made: Sequence[Check]) -> list[str]:
    """What is not as it was, in sentences: where something came out otherwise, it may be why."""
    return [
        *_rows_gone(run, again, forgotten),
        *_changed("package", run.packages, again.packages),
        *(_changed("machine", {"": run.machine}, {"": again.machine}) if run.machine else ()),
        *_changed("git commit", {"": _commit(run.git_commit)}, {"": _commit(again.git_commit)}),
        *([DRAWN] if _only_the_fit_differs(made) else ()),
    ]


def _rows_gone(run: Run, again: Run, forgotten: Mapping[str, Forgotten]) -> Iterator[str]:
    for source, rows in run.source_rows.items():
        gone = rows - again.source_rows.get(source, 0)
        if gone <= 0:
            continue
        text = f"rows of source {source!r} that are gone: {gone} of {rows}"
        if (known := forgotten.get(source)) is not None:
            text += f"; forgotten of it since then: {known.rows}, about {known.entities} entities"
        yield text


def _changed(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if (old := before.get(name)) != (new := now.get(name)):
            yield f"{what}{f' {name}' if name else ''} was {old or 'not there'}, is {new or 'not there'}"


def _only_the_fit_differs(made: Sequence[Check]) -> bool:
    """Whether something came out otherwise though it was fitted on the same values."""
    same_rows = all(check.equal for check in made if check.name == FRAME)
    return same_rows and not all(check.equal or check.unread for check in made)


def _mapping(
    what: str, before: Mapping[str, str], now: Mapping[str, str], *, only_differing: bool = False
) -> Iterator[Check]:
    for name in sorted(before.keys() | now.keys()):
        check = _check(f"{what} {name}", _plain(before.get(name, "")), _plain(now.get(name, "")))
        if not (only_differing and check.equal):
            yield check


def _check(name: str, recorded: str, found: str) -> Check:
    return Check(name, recorded, found, recorded == found)


def _texts(values: Mapping[str, float]) -> dict[str, str]:
    """Numbers as Redis has them: equal texts are equal numbers."""
    return {name: str(value) for name, value in values.items()}


def _commit(text: str) -> str:
    """Some digits, and whether files differed from it."""
    digits, dash, dirty = text.partition("-")
    return f"{digits[:DIGITS]}{dash}{dirty}"


def _plain(text: str) -> str:
    """In one line, without the addresses of objects, which are others in each process."""
    return ADDRESS.sub("", " ".join(text.split()))


# --- reports of repeated runs: each a file beside its run, `runs/{model}/{run}/reproduced-{time}.json`

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
