"""The HTTP calls about runs: which there are, how they differ, those logged by hand, and what they come from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from flask import Flask, Response
from pydantic import Field

from modelmill.errors import UnknownName
from modelmill.http.app import reply, whole
from modelmill.http.bodies import Body, Query, Text, takes
from modelmill.state.runs import Run
from services.trainer.http.models import Limit
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs import logged
from services.trainer.runs.index import NEWEST_FIRST, RunIndex
from services.trainer.runs.logged import LoggedRuns, NewRun, RunChange
from services.trainer.runs.tables import CSV_TYPE, MAX_COMPARED_RUNS, PARQUET_TYPE, as_csv, as_parquet, compare
from services.trainer.trace.compare import reports, require_repeatable
from services.trainer.trace.lineage import Lineage

FILTER = Field("", description="comparisons such as metrics.auc > 0.7 and params.clf__C = 1")
ORDER = Field(NEWEST_FIRST, description="fields such as -metrics.auc,started")


class RunSearch(Query):
    """Which runs are asked for."""

    model: str | None = Field(None, description="the name of a model")
    filter: str = FILTER
    order: str = ORDER
    limit: Limit = 50
    cursor: str | None = Field(None, description="the `next` of the page before")


class RunExport(Query):
    """Which runs are asked for, as what."""

    format: Literal["csv", "parquet"] = Field("csv", description="csv or parquet")
    filter: str = FILTER
    order: str = ORDER


class RunComparison(Query):
    """The runs to compare."""

    run: list[str] = Field(
        min_length=2, max_length=MAX_COMPARED_RUNS, description=f"2 to {MAX_COMPARED_RUNS} runs to compare"
    )


class Repetition(Body):
    """What a repetition is asked for with."""

    by: Text = ""


def add_run_routes(app: Flask, index: RunIndex, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    _add_search(app, index, overview, recipes)
    _add_logging(app, LoggedRuns(index.runs), recipes)


def _add_search(app: Flask, index: RunIndex, overview: Overview, recipes: Recipes) -> None:
    @app.get("/runs")
    @takes(RunSearch)
    def runs(query: RunSearch) -> Response:
        """Runs without their tracebacks: the newest, or those that `?filter=` matches, in the `?order=` asked for.

        `filter=metrics.roc_auc > 0.7 and params.clf__C = 1`, `order=-metrics.roc_auc,started` (default `-started`),
        `model=`, `limit=` of them (default 50). `total` says how many match; where there are more, `next` is the
        `cursor=` of the next page. A filter that cannot be read is answered 422 with the place where.
        """
        if query.model is not None:
            overview.require(recipes.definitions, query.model)
        page = index.search(query.filter, **query.model_dump(exclude={"filter"}))
        found = [_without_traceback(run) for run in index.runs.read(page.ids)]
        return reply({"runs": found, "total": page.total, "next": page.next})

    @app.get("/runs/<run>")
    def run(run: str) -> Response:
        """A run with all that is recorded of it."""
        return reply(asdict(index.runs.get(run)))

    @app.get("/runs/<run>/trials")
    def trials(run: str) -> Response:
        """The trials of a run's search as runs of their own, in the order of their numbers, without tracebacks.

        A trial whose process was killed has a run for each attempt. `trials` is how many the search has, `trials_ended`
        how many of them have ended and `trials_failed` how many of these failed.
        """
        parent = index.runs.get(run)
        return reply(
            {
                "run": run,
                "trials": parent.trials,
                "trials_ended": parent.trials_ended,
                "trials_failed": parent.trials_failed,
                "runs": [_without_traceback(trial) for trial in index.runs.trials(run)],
            }
        )

    @app.get("/runs/compare")
    @takes(RunComparison)
    def compared(query: RunComparison) -> Response:
        """Runs side by side, `?run=A&run=B` and more: parameters, metrics, data, features, packages, code.

        Each line has the `values` of the runs in turn, whether they differ, and of numbers how much more than the
        first run's each is.
        """
        found = index.runs.read(query.run)
        if missing := [one for one in query.run if one not in {run.id for run in found}]:
            raise UnknownName("run", missing[0], index.search(limit=200).ids)
        return reply(compare(found))

    @app.get("/runs/export")
    @takes(RunExport)
    def export(query: RunExport) -> Response:
        """Runs as a file: `?format=csv` with timestamp, model, parameters, score, model_path; `parquet` with all.

        `filter=` and `order=` as of `/runs`. The score is the metric that the model is judged by.
        """
        page = index.search(query.filter, order=query.order)
        name = {"Content-Disposition": f'attachment; filename="runs.{query.format}"'}
        if query.format == "csv":
            return whole(as_csv(index.runs, page.ids), CSV_TYPE, name)
        fields = index.fields_of(page.ids)
        return whole(as_parquet(index.runs, page.ids, fields), PARQUET_TYPE, name)


def _add_logging(app: Flask, runs: LoggedRuns, recipes: Recipes) -> None:
    @app.post("/runs")
    @takes(NewRun)
    def start(body: NewRun) -> Response:
        """Begin a run that is logged by hand: `{"model": ..., "params": {...}, "packages": {...}, "by": ...}`; 201.

        The model need not be declared. `lease_seconds` says how long the run goes on without being heard of; after
        that it is closed as lost.
        """
        declared = recipes.definitions.models.get(body.model)
        run = runs.start(body, metric=declared.metric if declared else "")
        answer = {**_without_traceback(run), "lease_seconds": logged.LEASE_SECONDS}
        return reply(answer, 201, {"Location": f"/runs/{run.id}"})

    @app.patch("/runs/<run>")
    @takes(RunChange)
    def change(run: str, body: RunChange) -> Response:
        """Add to a run that is logged by hand, or end it; an empty body renews its lease.

        `{"params": {...}, "metrics": {...}}` adds; `{"status": "succeeded"}` ends it, `{"status": "failed", "error":
        ..., "traceback": ...}` too. 409 once it has ended.
        """
        return reply(_without_traceback(runs.change(run, body)))


def add_trace_routes(app: Flask, queue: TrainingQueue, overview: Overview, recipes: Recipes) -> None:
    """Add those that repeat runs, and those that trace what was made of what."""
    runs = overview.registry.runs

    @app.post("/runs/<run>/reproduce")
    @takes(Repetition)
    def reproduce(run: str, body: Repetition) -> Response:
        """Repeat a run in a job and compare what comes out; answers 202 with the job. `{"by": ...}` says who asks.

        The frame is made again as of the recorded position of the history, and fitted by the recorded code. Nothing is
        registered. 409 for a run that did not succeed.
        """
        found = runs.get(run)
        require_repeatable(found)
        job = queue.repeat(run, found.model, by=body.by)
        url = f"/jobs/{job}"
        return reply({"job": job, "url": url, "run": run, "model": found.model}, 202, {"Location": url})

    @app.get("/runs/<run>/reproductions")
    def reproductions(run: str) -> Response:
        """What came of each repetition of a run, newest first: what was compared, equal or not, and what may be why."""
        return reply({"reproductions": reports(overview.storage, runs.get(run))})

    @app.get("/lineage/<of>")
    def lineage(of: str) -> Response:
        """Where a prediction (by its id), a version (`user_target@7`) or a run comes from.

        Its version, run, frame, sources with rows and positions, features with versions and code, what triggered it,
        and what became of it. 404 for a prediction that is no longer among those that are kept.
        """
        return reply(Lineage(overview.registry, recipes.definitions).of(of))

    @app.get("/lineage/sources/<source>")
    def source_lineage(source: str) -> Response:
        """What was made of a source: features, models, runs, versions and the aliases that name them."""
        return reply(Lineage(overview.registry, recipes.definitions).of_source(source))


def _without_traceback(run: Run) -> dict[str, Any]:
    return {name: value for name, value in vars(run).items() if name != "traceback"}
