"""The RQ job that makes a version of a model that was trained elsewhere: `register_upload`.

Stages: check -> frame -> evaluate -> package -> register -> done, recorded in a run with the trigger `registered`. What
it is given is checked before anything of it is run; a pickle is never loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from rq import get_current_job

from modelmill import applied, package
from modelmill.connections import connect
from modelmill.declarations import Model
from modelmill.definitions import Definitions
from modelmill.definitions_file import load
from modelmill.errors import InvalidRequest
from modelmill.events import utc_now
from modelmill.offers import Offer
from modelmill.package import GRAPH
from modelmill.registry import CHAMPION, Registry
from modelmill.runs import Run, new_run_id
from modelmill.storage import Storage
from services.trainer.evaluation.metrics import Task, evaluate, require_metric, task_of
from services.trainer.exchange import agreement, judging
from services.trainer.exchange.estimators import read_estimator
from services.trainer.exchange.graphs import ForeignGraph, read_graph
from services.trainer.job import _earlier_attempt, make_estimator
from services.trainer.jobs.run_record import RunRecord, package_versions, parameters
from services.trainer.packaging import manifest as packaging
from services.trainer.packaging.convert import Converted, convert
from services.trainer.packaging.graph import Graph, GraphClassifier, GraphRegressor
from services.trainer.promotion.registration import HeldOut, register
from services.trainer.settings import TrainerSettings

TRIGGER = "registered"


@dataclass(frozen=True)
class Candidate:
    """What an offer holds: something that answers, and its graph where it came as one."""

    estimator: Any
    """With the methods of an estimator of scikit-learn."""
    graph: Converted | None


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

    With `promote` it becomes the champion whatever the model's policy says of it.

    Returns:
        The run's id, the version, whether it was promoted, and the metrics.

    Raises:
        InvalidRequest: for a file that is not what the definitions declare.
    """
    settings = TrainerSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    definitions = applied.in_force(redis) or load(settings.definitions)
    recipe = definitions.model(model)
    registry, storage = Registry(redis), Storage(settings.storage_url)
    job = get_current_job()
    if job and (before := _earlier_attempt(registry, job)):
        return before
    offered = Offer.from_json(offer)
    run = Run(
        id=new_run_id(),
        model=model,
        started=utc_now(),
        trigger=trigger,
        by=by,
        job=job.id if job else "",
        lease=getattr(job, "lease", ""),
        features=[*recipe.features, *recipe.inputs],
        definitions=definitions.fingerprint,
        packages=package_versions(),
        params=offered.params,
        origin={**offered.origin, "format": offered.format, "file": offered.file},
    )
    record = RunRecord(registry, run, job)
    with record.recording():
        inputs = packaging.signature(definitions, recipe)
        task = Registration(record, definitions, recipe, storage, settings, offered, inputs)
        version, promoted = _register(task, upload)
    record.done()
    if promote and not promoted:
        registry.promote(model, version, by=by, reason=reason or f"asked for when it was registered, run {run.id}")
    storage.remove(upload)
    return {"run": run.id, "version": version, "promoted": promoted or promote, "metrics": record.run.metrics}


def _register(task: Registration, upload: str) -> tuple[int, bool]:
    record, recipe, inputs = task.record, task.recipe, task.inputs
    with record.stage("check"):
        content = task.storage.read(upload)
        digest = hashlib.sha256(content).hexdigest()
        record.note(fields=inputs.fields, origin={**record.run.origin, "sha256": digest})
        if task.offer.columns is not None:
            agreement.require_types(task.offer.columns, recipe.name, inputs.fed)
        require_metric(recipe.metric)
        declared = task_of(make_estimator(recipe))
        offered = _read(task, content)
        agreement.require_task(_task(offered), declared, recipe.name)
    with record.stage("frame"):
        found = judging.held_out(task.definitions, recipe, inputs.fed, declared, task.settings)
        rows = judging.one_row(inputs.fed, task.offer.example) if isinstance(found, str) else found[1].rows
        if not isinstance(found, str):
            frame, held_out = found
            record.note(
                rows_test=len(held_out.rows),
                data_fingerprint=frame.fingerprint,
                data_start=frame.span[0],
                data_end=frame.span[1],
            )
    with record.stage("evaluate"):
        candidate = _candidate(task, offered, None if isinstance(found, str) else found[0].label)
        _require_answers(candidate.estimator, rows)
        elsewhere = {f"elsewhere.{name}": value for name, value in task.offer.metrics.items()}
        scored = {} if isinstance(found, str) else _scores(candidate.estimator, found[1])
        own = {} if candidate.graph else parameters(candidate.estimator)
        record.note(
            metrics=scored | elsewhere,
            params=record.run.params | own,
            estimator="" if candidate.graph else candidate.estimator.__repr__(N_CHAR_MAX=10_000),
        )
    with record.stage("package"):
        _package(task, candidate, rows)
    with record.stage("register"):
        return _number(task, found if isinstance(found, str) else found[1])


def _read(task: Registration, content: bytes) -> ForeignGraph | Any:
    """What the file holds: a graph, or an estimator."""
    read = read_graph if task.offer.format == "onnx" else read_estimator
    return read(content, task.recipe.name, task.inputs.fed)


def _task(offered: ForeignGraph | Any) -> Task:
    return offered.task if isinstance(offered, ForeignGraph) else task_of(offered)


def _candidate(task: Registration, offered: ForeignGraph | Any, labels: np.ndarray | None) -> Candidate:
    """What can be asked; `labels` are those that the data have, if there are data."""
    model = task.recipe.name
    label = task.definitions.label_source(task.recipe).columns[task.recipe.label]
    if not isinstance(offered, ForeignGraph):
        if hasattr(offered, "classes_"):
            agreement.labels(offered.classes_.tolist(), label, model)
        return Candidate(offered, None)
    foreign, names = offered, [item.name for item in task.inputs.fed]
    try:
        graph = Graph(foreign.content, names, foreign.layout, foreign.tensor_dtype)
    except Exception as error:  # ONNX Runtime's errors have no common root
        raise InvalidRequest(f"ONNX Runtime cannot load the graph: {str(error).splitlines()[0][:300]}") from None
    converted = Converted(foreign.content, foreign.layout, foreign.tensor_dtype, 0)
    if foreign.task == "regression":
        return Candidate(GraphRegressor(graph), converted)
    classes = task.offer.classes or foreign.classes or (None if labels is None else np.unique(labels).tolist())
    if classes is None:
        raise InvalidRequest(
            "the graph does not name its classes, and there are no labelled rows: say them, --classes 0,1"
        )
    return Candidate(GraphClassifier(graph, agreement.labels(classes, label, model)), converted)


def _require_answers(estimator: Any, rows: pd.DataFrame) -> None:
    """Refuse a model that does not answer each of `rows` as its task asks for.

    Raises:
        InvalidRequest: saying what it answers.
    """
    try:
        answers = np.asarray(estimator.predict(rows))
        probabilities = np.asarray(estimator.predict_proba(rows)) if hasattr(estimator, "predict_proba") else None
    except Exception as error:  # anything that a foreign model may raise
        lines = str(error).strip().splitlines() or [""]
        raise InvalidRequest(f"the model does not answer a row: {type(error).__name__}: {lines[0][:300]}") from None
    if answers.shape != (len(rows),):
        raise InvalidRequest(
            f"the model answers {len(rows)} rows in the shape {list(answers.shape)}; expected one each"
        )
    if task_of(estimator) == "regression":
        if not np.issubdtype(answers.dtype, np.number) or not np.isfinite(answers).all():
            raise InvalidRequest(f"the model answers {_first_odd(answers)!r}; expected finite numbers")
        return
    classes = np.asarray(estimator.classes_).tolist()
    if unknown := sorted(set(answers.tolist()) - set(classes)):
        raise InvalidRequest(f"the model answers {unknown[0]!r}, which is none of its classes {classes}")
    if probabilities is None:
        return
    if probabilities.shape != (len(rows), len(classes)) or not np.isfinite(probabilities).all():
        raise InvalidRequest(
            f"the model gives probabilities in the shape {list(probabilities.shape)}, finite:"
            f" {np.isfinite(probabilities).all()}; expected finite ones of {len(classes)} classes"
        )
    likeliest = np.asarray(classes)[probabilities.argmax(axis=1)]
    if (likeliest != answers).mean() > 0.5:
        raise InvalidRequest(
            f"the likeliest class differs from the label on {(likeliest != answers).sum()} of {len(rows)} rows: the"
            f" probabilities are not in the order {classes}; say the order, --classes"
        )


def _scores(estimator: Any, held_out: HeldOut) -> dict[str, float]:
    return evaluate(estimator, held_out.rows, held_out.label, held_out.recipe.metric)


def _package(task: Registration, candidate: Candidate, rows: pd.DataFrame) -> None:
    record = task.record
    converted = candidate.graph or convert(candidate.estimator, task.inputs.fed, rows)
    manifest = packaging.manifest(
        task.recipe, task.definitions.fingerprint, record.run.id, task.inputs, candidate.estimator, converted,
        record.run.metrics, rows,
    )  # fmt: skip
    files = {GRAPH: converted.graph} if candidate.graph else packaging.files(candidate.estimator, converted)
    folder = package.write(task.storage, manifest, files)
    record.note(package=folder, params=record.run.params | {"graph": str(converted)})


def _number(task: Registration, held_out: HeldOut | str) -> tuple[int, bool]:
    """Register the package: judged as any other where there are rows, otherwise waiting for a person."""
    record = task.record
    if isinstance(held_out, str):
        run = replace(record.run, decision=f"not promoted: there are no rows to judge it on: {held_out}")
        champion = record.registry.aliases(run.model).get(CHAMPION)
        return record.registry.register(run, run.package, promote=False, champion=champion).version, False
    manifest, _ = package.read(task.storage, record.run.package)
    version, decision = register(record.registry, task.storage, record.run, manifest, held_out)
    return version.version, decision.promote


def _first_odd(answers: Sequence[Any] | np.ndarray) -> Any:
    values = np.asarray(answers)
    if not np.issubdtype(values.dtype, np.number):
        return values[0]
    return float(values[~np.isfinite(values)][0])
