"""The RQ job that trains a model: `services.trainer.job.train`, the only function that a worker runs.

Stages: frame -> fit -> evaluate -> package -> register -> done. Each is recorded in the run and shown by the job.
From the shell:

    rq enqueue --url $REDIS_URL --queue train --serializer json --timeout 1h services.trainer.job.train user_target
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import orjson
from redis.client import Pipeline
from rq import get_current_job
from rq.job import Job
from sklearn.base import clone

from modelmill import applied, package
from modelmill.carried import carried
from modelmill.connections import connect
from modelmill.declarations import Model
from modelmill.definitions import Definitions
from modelmill.definitions_file import load
from modelmill.errors import InvalidRequest, RunEnded, UnknownName
from modelmill.events import utc_now
from modelmill.registry import Registry
from modelmill.runs import Run, new_run_id
from modelmill.splits import AtRandom, ByTime
from modelmill.storage import Storage
from services.trainer.cards.cards import Cards
from services.trainer.evaluation import evaluation as evaluations
from services.trainer.evaluation.answers import Answers, task_of
from services.trainer.evaluation.evaluate import Question, brief, evaluate
from services.trainer.evaluation.illustration import illustrated
from services.trainer.evaluation.importance import Fitted
from services.trainer.evaluation.metrics import require_metrics
from services.trainer.evaluation.segments import parts
from services.trainer.jobs import snapshot
from services.trainer.jobs.recovery import LOST
from services.trainer.jobs.run_record import RunRecord, git_commit, package_versions, parameters
from services.trainer.jobs.view import attempt_of
from services.trainer.packaging import manifest as packaging
from services.trainer.packaging.packing import pack
from services.trainer.promotion.registration import HeldOut, register
from services.trainer.settings import TrainerSettings
from services.trainer.training import frame as frames
from services.trainer.training.frame import Frame
from services.trainer.training.split import Split, require_classes, split

TLS = httpx.create_ssl_context()
"""Made once, before a worker forks: it takes a tenth of a second."""


def train(
    model: str, trigger: str = "manual", by: str = "", start: str | None = None, end: str | None = None
) -> dict[str, Any]:
    """Train `model` on the labelled rows with start <= event time < end, register it and maybe promote it.

    Returns:
        The run's id, the version, whether it was promoted, and the metrics.

    Raises:
        DefinitionsError, UnknownName: where no run could be made of it; any other error is in the run too.
    """
    settings = TrainerSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    definitions = applied.in_force(redis) or load(settings.definitions)
    recipe = definitions.model(model)
    registry = Registry(redis)
    storage = Storage(settings.storage_url)
    job = get_current_job()
    if job and (before := _earlier_attempt(registry, job)):
        return before
    if job:
        _agree(registry, job, definitions, recipe)
    run = Run(
        id=getattr(job, "run", "") or new_run_id(),
        model=model,
        attempt=max(1, attempt_of(job)) if job else 1,
        retry_reason=job.meta.get("reason", "") if job else "",
        started=utc_now(),
        trigger=trigger,
        by=by,
        as_of=end or "",
        job=job.id if job else "",
        lease=getattr(job, "lease", ""),
        features=[*recipe.features, *recipe.inputs],
        definitions=definitions.fingerprint,
        git_commit=git_commit(definitions.path.parent),
        packages=package_versions(),
    )
    record = RunRecord(registry, run, job)
    with record.recording():
        version, promoted = _train(record, definitions, recipe, storage, settings, start=start, end=end)
    Cards(registry, storage).keep(run.id)
    record.done()
    return {"run": run.id, "version": version, "promoted": promoted, "metrics": record.run.metrics}


def _train(
    record: RunRecord,
    definitions: Definitions,
    recipe: Model,
    storage: Storage,
    settings: TrainerSettings,
    *,
    start: str | None,
    end: str | None,
) -> tuple[int, bool]:
    inputs = packaging.signature(definitions, recipe)
    label = definitions.label_source(recipe).columns[recipe.label]
    with record.stage("frame"):
        record.note(fields=inputs.fields)
        estimator = make_estimator(recipe)
        task = task_of(estimator)
        require_metrics(recipe.metrics)
        with (
            httpx.Client(timeout=httpx.Timeout(10.0, read=settings.frame_timeout), verify=TLS) as http,
            frames.fetch(
                http, settings.feature_url, recipe.name, definitions.fingerprint, start=start, end=end
            ) as file,
        ):
            record.progress(0.5)
            frame = frames.read(file, inputs.fed, label, carried(definitions, recipe))
        parted = _split(definitions, recipe, frame, classes=task == "classification")
        record.note(
            rows_train=len(parted.train),
            rows_test=len(parted.held_out),
            rows_dropped=frame.dropped,
            data_fingerprint=frame.fingerprint,
            data_start=frame.span[0],
            data_end=frame.span[1],
            split=parted.how,
        )
    with record.stage("fit"):
        record.note(estimator=estimator.__repr__(N_CHAR_MAX=10_000), params=parameters(estimator))
        estimator.fit(frame.inputs.iloc[parted.train], frame.label[parted.train])
    with record.stage("evaluate"):
        held_out = _held_out(recipe, frame, parted)
        begun = time.perf_counter()
        answers = Answers.of(estimator, held_out.rows)
        fitted = Fitted(
            estimator, held_out.rows, record.run.seconds["fit"], (time.perf_counter() - begun) / len(answers)
        )
        question = Question(recipe.metrics, held_out.label, recipe.labels, held_out.segments, parted.how)
        found = evaluate(question, answers, frame.label[parted.train])
        found = illustrated(found, recipe, question, answers, fitted, frame.inputs.iloc[parted.train])
        evaluations.write(storage, recipe.name, record.run.id, found)
        record.note(
            metric=recipe.metric,
            metrics=found.metrics,
            intervals={name: str(interval) for name, interval in found.intervals.items()},
            segments=brief(found.segments, recipe.metric),
        )
    with record.stage("package"):
        packed = pack(estimator, inputs.fed, held_out.rows, answers, trusted=recipe.trusted)
        fitted_on = frame.inputs.iloc[parted.train]
        manifest = packaging.manifest(
            recipe, record.run, inputs, estimator, packed, fitted_on=fitted_on, held_out=held_out.rows
        )
        folder = package.write(storage, manifest, packed.files)
        record.note(package=folder, **packed.recorded)
    with record.stage("register"):
        version, decision = register(record.registry, storage, record.run, manifest, held_out)
    return version.version, decision.promote


def _agree(registry: Registry, job: Job, definitions: Definitions, recipe: Model) -> None:
    """Note which data the job is about to read, so that requests for the same join it, and the model's time limit."""
    job.meta["data"] = snapshot.position(registry.redis, definitions, recipe.name)
    noted: dict[str, Any] = {"meta": orjson.dumps(job.meta)}
    if recipe.timeout:
        job.timeout = noted["timeout"] = recipe.timeout

    def note(pipe: Pipeline) -> None:
        if (lease := getattr(job, "lease", "")) and not pipe.exists(lease):
            raise RunEnded(getattr(job, "run", ""), "lost", "its worker did not renew its lease in time")
        pipe.multi()
        pipe.hset(job.key, mapping=noted)

    registry.redis.transaction(note, *filter(None, [getattr(job, "lease", "")]))


def _earlier_attempt(registry: Registry, job: Job) -> dict[str, Any] | None:
    """What an attempt would have returned whose process was killed after it had registered its version.

    A run that was not that far is closed.
    """
    before = getattr(job, "before", None)
    if before is None:
        return None
    try:
        run = registry.runs.get(before)
    except UnknownName:  # it was killed before it had recorded anything
        return None
    if run.version is None:
        with suppress(RunEnded):
            registry.runs.lose(run, LOST)
        return None
    promoted = any(m.version == run.version and m.by == "trainer" for m in registry.history(run.model))
    return {"run": run.id, "version": run.version, "promoted": promoted, "metrics": run.metrics}


def make_estimator(recipe: Model) -> Any:
    """A fresh estimator of the recipe: what its function returns, or a copy of its object.

    Raises:
        InvalidRequest: for what cannot be fitted.
    """
    made = recipe.estimator
    if isinstance(made, type) or not hasattr(made, "fit"):
        made = made() if callable(made) else made
    if not hasattr(made, "fit") or not hasattr(made, "get_params"):
        raise InvalidRequest(
            f"model {recipe.name!r}: estimator is {made!r}; expected a scikit-learn estimator, or a function that"
            " returns one"
        )
    return clone(made)


def _split(definitions: Definitions, recipe: Model, frame: Frame, *, classes: bool) -> Split:
    """As the recipe says; by time where it says nothing and the label's source has times of its own."""
    by_itself = ByTime() if definitions.label_source(recipe).event_time else AtRandom()
    parted = split(recipe.split or by_itself, frame, recipe.labels, classes=classes)
    if classes:
        require_classes(frame.label, parted)
    elif not np.issubdtype(frame.label.dtype, np.number):
        raise InvalidRequest(f"label {recipe.label!r} holds {frame.label.dtype}; a regressor needs numbers")
    return parted


def _held_out(recipe: Model, frame: Frame, parted: Split) -> HeldOut:
    rows = parted.held_out
    segments = {column: parts(frame.column(column).iloc[rows]) for column in recipe.segments}
    return HeldOut(recipe, frame.inputs.iloc[rows], frame.label[rows], segments)
