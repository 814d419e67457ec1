"""The HTTP calls about runs: which there are, how they differ, and those that are logged by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Flask, Response, request

from modelmill.errors import InvalidRequest, UnknownName
from modelmill.http.bodies import takes
from modelmill.http.web import reply, whole
from modelmill.state.runs import Run
from services.trainer import requests
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs import logged
from services.trainer.runs.index import NEWEST_FIRST, RunIndex
from services.trainer.runs.logged import LoggedRuns, NewRun, RunChange
from services.trainer.runs.tables import CSV_TYPE, MAX_COMPARED_RUNS, PARQUET_TYPE, as_csv, as_parquet, compare


def add_run_routes(app: Flask, index: RunIndex, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    _add_search(app, index, overview, recipes)
    _add_logging(app, LoggedRuns(index.runs), recipes)


def _add_search(app: Flask, index: RunIndex, overview: Overview, recipes: Recipes) -> None:
    @app.get("/runs")
    def runs() -> Response:
        """Runs without their tracebacks: the newest, or those that `?filter=` matches, in the `?order=` asked for.

        `filter=metrics.roc_auc > 0.7 and params.clf__C = 1`, `order=-metrics.roc_auc,started` (default `-started`),
        `model=`, `limit=` of them (default 50). `total` says how many match; where there are more, `next` is the
        `cursor=` of the next page. A filter that cannot be read is answered 422 with the place where.
        """
        model = request.args.get("model")
        limit = requests.limit(request.args.get("limit"))
        if model is not None:
            overview.require(recipes.definitions, model)
        page = index.search(
            request.args.get("filter", ""),
            model=model,
            order=request.args.get("order", NEWEST_FIRST),
            limit=limit,
            cursor=request.args.get("cursor"),
        )
        found = [_without_traceback(run) for run in index.runs.read(page.ids)]
        return reply({"runs": found, "total": page.total, "next": page.next})

    @app.get("/runs/<run>")
    def run(run: str) -> Response:
        """A run with all that is recorded of it."""
        return reply(asdict(index.runs.get(run)))

    @app.get("/runs/compare")
    def compared() -> Response:
        """Runs side by side, `?run=A&run=B` and more: parameters, metrics, data, features, packages, code.

        Each line has the `values` of the runs in turn, whether they differ, and of numbers how much more than the
        first run's each is.
        """
        ids = request.args.getlist("run")
        if not 2 <= len(ids) <= MAX_COMPARED_RUNS:
            expected = f"expected 2 to {MAX_COMPARED_RUNS} runs to compare"
            raise InvalidRequest(f"run= is given {len(ids)} times; {expected}", field="run")
        found = index.runs.read(ids)
        if missing := [one for one in ids if one not in {run.id for run in found}]:
            raise UnknownName("run", missing[0], index.search(limit=200).ids)
        return reply(compare(found))

    @app.get("/runs/export")
    def export() -> Response:
        """Runs as a file: `?format=csv` with timestamp, model, parameters, score, model_path; `parquet` with all.

        `filter=` and `order=` as of `/runs`. The score is the metric that the model is judged by.
        """
        form = request.args.get("format", "csv")
        if form not in ("csv", "parquet"):
            raise InvalidRequest(f"format={form!r}; expected csv or parquet", field="format")
        page = index.search(request.args.get("filter", ""), order=request.args.get("order", NEWEST_FIRST))
        name = {"Content-Disposition": f'attachment; filename="runs.{form}"'}
        if form == "csv":
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


def _without_traceback(run: Run) -> dict[str, Any]:
    return {name: value for name, value in vars(run).items() if name != "traceback"}
