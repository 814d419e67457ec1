"""The RQ job that makes a version of a model that was trained elsewhere: `register_upload`.

Stages: check -> frame -> evaluate -> package -> register -> done, recorded in a run with the trigger `registered`. What
it is given is checked before anything of it is run; a pickle is never loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from rq import get_current_job
from rq.job import Job

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions
from modelmill.declare.gates import metrics_of
from modelmill.errors import InvalidRequest
from modelmill.packages import package
from modelmill.packages.offers import Offer
from modelmill.state.connections import connect
from modelmill.state.registry import CHAMPION, Registry
from modelmill.state.runs import Run, new_run_id
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.evaluation import evaluation as evaluations
from services.trainer.evaluation.answers import Answers, Task, task_of
from services.trainer.evaluation.evaluation import Evaluation, evaluate
from services.trainer.evaluation.metrics import require_metrics
from services.trainer.exchange import judging
from services.trainer.exchange.foreign import ForeignGraph, read_estimator, read_graph, require_task, require_types
from services.trainer.exchange.judging import answers_of, candidate, task_in
from services.trainer.jobs.opening import prepare_opening, require_opening
from services.trainer.jobs.recovery import earlier_attempt
from services.trainer.jobs.run_record import RunRecord, package_versions, parameters
from services.trainer.jobs.view import attempt_of
from services.trainer.models import Moves, Retention
from services.trainer.packaging import packing as packaging
from services.trainer.packaging.packing import pack
from services.trainer.promotion.registration import Candidate, register
from services.trainer.settings import TrainerSettings
from services.trainer.trace import code
from services.trainer.training.steps import study_of, tolerance_of

TRIGGER = "registered"


@dataclass(frozen=True)
class Registration:
    """What the stages of one registration share."""

    record: RunRecord
    definitions: Definitions
    recipe: Model
    storage: Storage
    settings: TrainerSettings
    offer: Offer
    inputs: packaging.Inputs


def register_upload(
    model: str,
    upload: str,
    offer: dict[str, Any],
    *,
    trigger: str = TRIGGER,
    by: str = "",
    promote: bool = False,
    reason: str = "",
) -> dict[str, Any]:
    """Make the file `upload` of the storage the next version of `model`.

    With `promote` it becomes the champion whatever the model's gates and policy say of it.

    Returns:
        The run's id, the version, whether it was promoted, and the metrics.

    Raises:
        InvalidRequest: for a file that is not what the definitions declare.
    """
    settings = TrainerSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    definitions = code.to_work_by(redis, settings.definitions)
    registry, storage = Registry(redis), Storage(settings.storage_url)
    job = get_current_job()
    offered = Offer.model_validate(offer)
    done = earlier_attempt(registry, job) if job else None
    if done is None:
        run = _run(definitions, definitions.model(model), offered, trigger=trigger, by=by, job=job)
        record = RunRecord(registry, run, job)
        try:
            with record.recording():
                inputs = packaging.signature(definitions, definitions.model(model))
                task = Registration(record, definitions, definitions.model(model), storage, settings, offered, inputs)
                version, promoted = _register(task, upload)
        except InvalidRequest:  # which another attempt would find as well
            storage.remove(upload)
            raise
        record.done()
        done = {"run": run.id, "version": version, "promoted": promoted, "metrics": record.run.metrics}
    if promote and registry.aliases(model).get(CHAMPION) != done["version"]:
        asked = reason or f"asked for when it was registered, run {done['run']}"
        Moves(registry, storage).promote(
            model, done["version"], alias=CHAMPION, by=by, reason=asked, expected=None, force=True
        )
        done["promoted"] = True
    Retention(registry, storage).after_registration(model, definitions.model(model).keep)
    storage.remove(upload)
    return done


def _run(definitions: Definitions, recipe: Model, offer: Offer, *, trigger: str, by: str, job: Job | None) -> Run:
    """What is known of the registration before anything is checked."""
    elsewhere = {f"metric.{name}": f"{value:.10g}" for name, value in offer.metrics.items()}
    return Run(
        id=getattr(job, "run", "") or new_run_id(),
        model=recipe.name,
        attempt=max(1, attempt_of(job)) if job else 1,
        retry_reason=job.meta.get("reason", "") if job else "",
        started=utc_now(),
        trigger=trigger,
        by=by,
        job=job.id if job else "",
        lease=getattr(job, "lease", ""),
        features=[*recipe.features, *recipe.inputs],
        definitions=definitions.fingerprint,
        packages=package_versions(),
        params=offer.params,
        origin={**offer.origin, **elsewhere, "format": offer.format, "file": offer.file},
    )


def _register(task: Registration, upload: str) -> tuple[int, bool]:
    record, recipe, inputs = task.record, task.recipe, task.inputs
    label = task.definitions.label_source(recipe).columns[recipe.labels[0]]
    with record.stage("check"):
        content = task.storage.read(upload)
        digest = hashlib.sha256(content).hexdigest()
        record.note(fields=inputs.fields, origin={**record.run.origin, "sha256": digest})
        offered, declared = _checked(task, content)
    with record.stage("frame"):
        prepare_opening(record.job)
        rows_of_today = judging.judging_rows(task.definitions, recipe, inputs.fed, declared, task.settings)
        if isinstance(rows_of_today, str):
            labels, rows = None, judging.one_row(inputs.fed, task.offer.example)
        else:
            labels, rows = rows_of_today.frame.label, rows_of_today.held_out.rows
            record.note(
                rows_test=len(rows),
                data_fingerprint=rows_of_today.frame.fingerprint,
                data_start=rows_of_today.frame.span[0],
                data_end=rows_of_today.frame.span[1],
                split=rows_of_today.parted.description,
            )
    with record.stage("evaluate"):
        found = candidate(offered, task.offer, recipe.name, inputs.fed, label, labels)
        answers = answers_of(found.estimator, rows)
        if found.foreign is None:
            own = parameters(found.estimator)
            printed = found.estimator.__repr__(N_CHAR_MAX=10_000)
            record.note(params=record.run.params | own, estimator=printed)
        judged = None if isinstance(rows_of_today, str) else _evaluate(task, rows_of_today, answers)
    with record.stage("package"):
        packed = found.packed(rows, answers) or pack(
            found.estimator, inputs.fed, rows, answers, trusted=recipe.trusted, tolerance=tolerance_of(recipe)
        )
        manifest = packaging.manifest(
            recipe, record.run, inputs, found.estimator, packed, fitted_on=rows, held_out=rows
        )
        # Nobody here knows which rows it was fitted on.
        folder = package.write(task.storage, replace(manifest, ranges={}), packed.files)
        require_opening(record.job, manifest, folder)
        record.note(package=folder, **packed.recorded)
    with record.stage("register"):
        if isinstance(rows_of_today, str) or judged is None:
            return _unjudged(task, str(rows_of_today)), False
        waiting = Candidate(recipe, record.run, manifest, rows_of_today.held_out, judged)
        version, decision = register(record.registry, task.storage, waiting)
        return version.version, decision.promote


def _checked(task: Registration, content: bytes) -> tuple[ForeignGraph | Any, Task]:
    """What the file holds, a graph or an estimator, where it is what the definitions declare; and its task."""
    recipe, fed = task.recipe, task.inputs.fed
    if len(recipe.labels) > 1:
        raise InvalidRequest(
            f"model {recipe.name!r} has {len(recipe.labels)} labels; models with one can be registered"
        )
    require_metrics([*recipe.metrics, *metrics_of(recipe.gates)])
    if task.offer.columns is not None:
        require_types(task.offer.columns, recipe.name, fed)
    if task.offer.format == "onnx":
        offered: ForeignGraph | Any = read_graph(content, recipe.name, fed)
    else:
        offered = read_estimator(content, recipe.name, fed, recipe.trusted)
    declared = task_of(study_of(recipe).estimator)
    require_task(task_in(offered), declared, recipe.name)
    return offered, declared


def _evaluate(task: Registration, rows_of_today: judging.JudgingRows, answers: Answers) -> Evaluation:
    """How good it is on the held-out rows, recorded."""
    record, recipe = task.record, task.recipe
    found = evaluate(rows_of_today.held_out, answers, rows_of_today.frame.label[rows_of_today.parted.train])
    evaluations.write(task.storage, recipe.name, record.run.id, found)
    record.note(**found.run_fields(recipe.metric))
    return found


def _unjudged(task: Registration, why: str) -> int:
    """Register the package without promoting it; a person may."""
    record = task.record
    run = replace(record.run, decision=f"not promoted: there are no rows to judge it on: {why}")
    champion = record.registry.aliases(run.model).get(CHAMPION)
    return record.registry.register(run, run.package, promote=False, champion=champion).version
