"""Repeat a run: the same rows, by the recorded code, with the recorded parameters; then compare what comes out.

Nothing of it is registered: a report beside the run, `runs/{model}/{run}/reproduced-{time}.json`, is all that is left.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pandas as pd
from rq import get_current_job

from modelmill.declare.definitions import Definitions
from modelmill.errors import PackageError, Pruned, RunEnded
from modelmill.packages import package
from modelmill.state import keys
from modelmill.state.connections import Redis, connect
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.evaluation.answers import Answers, task_of
from services.trainer.evaluation.evaluation import evaluate
from services.trainer.jobs.run_record import RunRecord, git_commit
from services.trainer.packaging import packing as packaging
from services.trainer.packaging.graph import packaged
from services.trainer.packaging.packing import pack
from services.trainer.settings import TrainerSettings
from services.trainer.trace import code, compare
from services.trainer.trace.compare import Check, Forgotten, Outputs, Reproduction, require_repeatable, write
from services.trainer.training.fit import fit_again
from services.trainer.training.steps import (
    frame_file,
    hold_out,
    read_frame,
    rows_of,
    split_frame,
    study_of,
    tolerance_of,
)


class Rehearsal(RunRecord):
    """What a repetition records: to itself, and for its job to show, but not in the registry."""

    def note(self, **known: Any) -> None:
        """Keep what is known by now."""
        self.run = replace(self.run, **known)
        self.progress(0.0)

    def done(self) -> None:
        """Let the job show that all is done."""
        self._show(stage="done", progress=1.0, rows=self.run.rows_train)


def reproduce(run: str, model: str = "", by: str = "") -> dict[str, Any]:
    """Repeat a run that succeeded, and compare; the RQ job behind `modelmill reproduce`.

    `model` is there for the queue to show.

    Returns:
        The report.

    Raises:
        UnknownName: for a run that does not exist.
        Conflict: for one that cannot be repeated, saying why.
    """
    settings = TrainerSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    registry, storage, job = Registry(redis), Storage(settings.storage_url), get_current_job()
    recorded = registry.runs.get(run)
    require_repeatable(recorded)
    definitions = code.recorded(redis, storage, recorded, settings.definitions)
    again = Run(
        id=recorded.id,
        model=recorded.model,
        started=utc_now(),
        lease=getattr(job, "lease", ""),
        git_commit=git_commit(definitions.path.parent),
        **asdict(code.surroundings(definitions)),
    )
    record = Rehearsal(registry, again, job)
    made = _repeat(record, recorded, definitions, storage, settings)
    found = compare.reasons(recorded, record.run, forgotten_since(redis, recorded.started), made)
    found += _not_compared(registry, recorded)
    equal = all(check.equal for check in made)
    report = Reproduction(recorded.id, recorded.model, utc_now(), by, job.id if job else "", equal, made, found)
    if again.lease and not redis.exists(again.lease):
        raise RunEnded(run, "lost", "its worker did not renew its lease in time")
    write(storage, report)
    record.done()
    return asdict(report)


def forgotten_since(redis: Redis, since: str) -> dict[str, Forgotten]:
    """Source to what was forgotten of it since an ISO time, as the receipts say."""
    found: dict[str, Forgotten] = {}
    for key in redis.scan_iter(match=keys.forgotten("*", "*"), count=1000):
        receipt = redis.hgetall(key)
        if receipt.get("ended") and receipt["ended"] < since:
            continue
        for name, text in receipt.items():
            kind, _, source = name.partition(".")
            if kind == "rows":
                before = found.get(source, Forgotten(0, 0))
                found[source] = Forgotten(before.entities + 1, before.rows + int(text))
    return found


def _repeat(
    record: Rehearsal, recorded: Run, definitions: Definitions, storage: Storage, settings: TrainerSettings
) -> list[Check]:
    recipe = definitions.model(recorded.model)
    with record.stage("frame"):
        study = study_of(recipe)
        classes = task_of(study.estimator) == "classification"
        span = {"start": recorded.start or None, "end": recorded.as_of or None}
        with frame_file(settings, definitions, recipe, **span, known_until=recorded.history) as file:
            record.progress(0.5)
            frame = read_frame(definitions, recipe, file)
        parted = split_frame(definitions, recipe, frame, classes=classes)
        record.note(
            rows_train=len(parted.train),
            rows_test=len(parted.held_out),
            rows_dropped=frame.dropped,
            data_fingerprint=frame.fingerprint,
            source_rows=frame.origin.rows,
            split=parted.description,
        )
    with record.stage("fit"):
        rows = rows_of(recipe, frame).take(parted.train)
        estimator = fit_again(record, storage, study, rows, recorded)
    held_out = hold_out(recipe, frame, parted)
    with record.stage("evaluate"):
        answers = Answers.of(estimator, held_out.rows)
        record.note(metrics=dict(evaluate(held_out, answers, frame.label[parted.train]).metrics))
    with record.stage("package"):
        inputs = packaging.signature(definitions, recipe).fed
        tolerance = tolerance_of(recipe)
        packed = pack(estimator, inputs, held_out.rows, answers, trusted=recipe.trusted, tolerance=tolerance)
        record.note(**packed.recorded)
    with record.stage("compare"):
        kept = not _not_compared(record.registry, recorded)
        stored = _stored(record.registry.redis, storage, recorded, held_out.rows) if kept else None
        return compare.checks(recorded, record.run, stored, Outputs(packed.graph.run(held_out.rows)))


def _not_compared(registry: Registry, recorded: Run) -> list[str]:
    """Why there are no answers to compare with, where the package was pruned as its model's `keep` says."""
    if not recorded.version:
        return []
    try:
        registry.version(recorded.model, recorded.version).require_package()
    except Pruned as pruned:
        return [f"predictions were not compared: {pruned.detail.partition('. ')[0]}"]
    return []


def _stored(redis: Redis, storage: Storage, recorded: Run, rows: pd.DataFrame) -> Outputs:
    """The answers of the run's own package."""
    try:
        manifest, content = package.read(storage, recorded.package)
    except PackageError as error:
        return Outputs([], error.detail)
    return Outputs(packaged(redis, manifest, content).graph.run(rows))
