"""The functions that a worker runs: `train`, the RQ job that trains a model, and `trial`, which helps with its search.

Stages: frame -> fit -> evaluate -> package -> register -> done. Each is recorded in the run and shown by the job.
From the shell:

    rq enqueue --url $REDIS_URL --queue train --serializer json --timeout 1h services.trainer.job.train user_target
"""

from __future__ import annotations

import time
from typing import IO, Any

import orjson
from redis.client import Pipeline
from rq import get_current_job
from rq.job import Job

from modelmill.declare.declarations import Model
from modelmill.declare.definitions import Definitions
from modelmill.errors import RunEnded
from modelmill.packages import package
from modelmill.state.connections import connect
from modelmill.state.registry import Registry
from modelmill.state.runs import Run, new_run_id
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.cards.cards import Cards
from services.trainer.evaluation import evaluation as evaluations
from services.trainer.evaluation.answers import Answers, task_of
from services.trainer.evaluation.evaluation import Evaluation, HeldOut, evaluate, with_card_data
from services.trainer.evaluation.importance import Fitted
from services.trainer.jobs import snapshot
from services.trainer.jobs.opening import prepare_opening, require_opening
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.jobs.recovery import earlier_attempt
from services.trainer.jobs.run_record import RunRecord, git_commit, package_versions
from services.trainer.jobs.view import attempt_of
from services.trainer.models import Retention
from services.trainer.packaging import packing as packaging
from services.trainer.packaging.packing import pack
from services.trainer.promotion.registration import Candidate, register
from services.trainer.settings import TrainerSettings
from services.trainer.trace import code
from services.trainer.training import sharing
from services.trainer.training.fit import Fitting, fit
from services.trainer.training.helper import Crew, help_search
from services.trainer.training.rows import Rows
from services.trainer.training.steps import (
    fold_constraints,
    frame_file,
    hold_out,
    read_frame,
    rows_of,
    seed_process,
    split_frame,
    study_of,
    tolerance_of,
)


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
    definitions = code.to_work_by(redis, settings.definitions)
    recipe = definitions.model(model)
    registry = Registry(redis)
    storage = Storage(settings.storage_url)
    job = get_current_job()
    if job and (before := earlier_attempt(registry, job)):
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
        start=start or "",
        as_of=end or "",
        job=job.id if job else "",
        lease=getattr(job, "lease", ""),
        seed=recipe.seed,
        features=[*recipe.features, *recipe.inputs],
        definitions=definitions.fingerprint,
        git_commit=git_commit(definitions.path.parent),
        packages=package_versions(),
    )
    record = RunRecord(registry, run, job)
    with record.recording():
        version, promoted = _train(record, definitions, recipe, storage, settings, start=start, end=end)
    Retention(registry, storage).after_registration(model, recipe.keep)
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
    crew = _crew(record, recipe, settings)
    with record.stage("frame"):
        prepare_opening(record.job)
        code.keep(record.registry.redis, storage, record.run, definitions)
        record.note(fields=inputs.fields, **vars(code.surroundings(definitions)))
        study = study_of(recipe)
        estimator = study.estimator
        task = task_of(estimator)
        with frame_file(settings, definitions, recipe, start=start, end=end) as file:
            record.progress(0.5)
            frame = read_frame(definitions, recipe, file)
            if crew:
                sharing.keep_frame(storage, record.run, file)
        parted = split_frame(definitions, recipe, frame, classes=task == "classification")
        record.note(
            rows_train=len(parted.train),
            rows_test=len(parted.held_out),
            rows_dropped=frame.dropped,
            data_fingerprint=frame.fingerprint,
            data_start=frame.span[0],
            data_end=frame.span[1],
            history=frame.origin.history,
            source_rows=frame.origin.rows,
            split=parted.description,
        )
    with record.stage("fit"):
        seed_process(recipe.seed)
        rows = rows_of(recipe, frame).take(parted.train)
        constraints = fold_constraints(definitions, recipe, frame, parted, classes=task == "classification")
        estimator = fit(Fitting(record, storage, recipe, crew), study, rows, parted.train, constraints, recipe.seed)
    with record.stage("evaluate"):
        held_out = hold_out(recipe, frame, parted)
        answers, found = _evaluate(record, storage, recipe, estimator, held_out, rows)
    with record.stage("package"):
        packed = pack(
            estimator, inputs.fed, held_out.rows, answers, trusted=recipe.trusted, tolerance=tolerance_of(recipe)
        )
        manifest = packaging.manifest(
            recipe, record.run, inputs, estimator, packed, fitted_on=rows.inputs, held_out=held_out.rows
        )
        folder = package.write(storage, manifest, packed.files)
        require_opening(record.job, manifest, folder)
        record.note(package=folder, **packed.recorded)
    with record.stage("register"):
        candidate = Candidate(recipe, record.run, manifest, held_out, found)
        version, decision = register(record.registry, storage, candidate)
    return version.version, decision.promote


def _evaluate(
    record: RunRecord, storage: Storage, recipe: Model, estimator: Any, held_out: HeldOut, rows: Rows
) -> tuple[Answers, Evaluation]:
    """What the estimator, fitted on `rows`, says of the held-out ones, and how good that is, which is recorded."""
    begun = time.perf_counter()
    answers = Answers.of(estimator, held_out.rows)
    fitted = Fitted(estimator, held_out.rows, answers, record.run.seconds["fit"], time.perf_counter() - begun)
    found = with_card_data(evaluate(held_out, answers, rows.label), recipe, held_out, fitted, rows.inputs)
    evaluations.write(storage, recipe.name, record.run.id, found)
    record.note(**found.run_fields(recipe.metric))
    return answers, found


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


def trial(run: str) -> dict[str, Any]:
    """Help with the search of `run` until none of its trials is left to begin.

    Returns:
        The number of trials that were carried out.

    Raises:
        UnknownName: for a run that does not exist.
        Conflict: where the code that it works with is kept no more.
        RunEnded: where this process has lost its lease.
    """
    settings = TrainerSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    registry = Registry(redis)
    parent = registry.runs.get(run)
    storage = Storage(settings.storage_url)
    definitions = code.recorded(redis, storage, parent, settings.definitions)
    recipe = definitions.model(parent.model)

    def read(file: IO[bytes]) -> Rows:
        return rows_of(recipe, read_frame(definitions, recipe, file))

    job = get_current_job()
    assert job is not None, "only workers help"
    return help_search(registry, storage, _queue(settings), parent, study_of(recipe), read, job)


def _crew(record: RunRecord, recipe: Model, settings: TrainerSettings) -> Crew | None:
    """The workers that can help with a search; None where there is none, or no worker."""
    if record.job is None or not recipe.search.tries:
        return None
    return Crew(_queue(settings), int(record.job.timeout or settings.train_timeout))


def _queue(settings: TrainerSettings) -> TrainingQueue:
    redis = connect(settings.redis_url, timeout=settings.redis_timeout, text=False)
    return TrainingQueue(redis, timeout=settings.train_timeout)
