"""The HTTP calls about runs: which there are, how they differ, and those that are logged by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Flask, Response, request

from modelmill.declare.declarations import NAME
from modelmill.errors import InvalidRequest, UnknownName
from modelmill.http.web import json_object, reply, whole
from modelmill.state.runs import Run
from services.trainer import requests
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.runs import logged
from services.trainer.runs.index import NEWEST_FIRST, RunIndex
from services.trainer.runs.logged import LoggedRuns
from services.trainer.runs.tables import CSV_TYPE, MAX_COMPARED_RUNS, PARQUET_TYPE, as_csv, as_parquet, compare

LONGEST_TRACEBACK = 100_000
"""Characters of a traceback."""


def add_run_routes(app: Flask, index: RunIndex, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    _add_search(app, index, overview, recipes)
    _add_export(app, index)
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
        found = [_brief(run) for run in index.runs.read(page.ids)]
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


def _add_export(app: Flask, index: RunIndex) -> None:
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
    def start() -> Response:
        """Begin a run that is logged by hand: `{"model": ..., "params": {...}, "packages": {...}, "by": ...}`; 201.

        The model need not be declared. `lease_seconds` says how long the run goes on without being heard of; after
        that it is closed as lost.
        """
        body = json_object()
        requests.require_fields(body, ("model", "params", "packages", "by"))
        model = requests.text(body, "model")
        if not NAME.fullmatch(model):
            raise InvalidRequest(f"model {model!r}: expected letters, digits and _, not starting with a digit")
        declared = recipes.definitions.models.get(model)
        run = runs.start(
            model,
            metric=declared.metric if declared else "",
            by=requests.text(body, "by"),
            params=logged.params(body),
            packages=logged.packages(body),
        )
        return reply({**_brief(run), "lease_seconds": logged.LEASE}, 201, {"Location": f"/runs/{run.id}"})

    @app.patch("/runs/<run>")
    def change(run: str) -> Response:
        """Add to a run that is logged by hand, or end it; an empty body renews its lease.

        `{"params": {...}, "metrics": {...}}` adds; `{"status": "succeeded"}` ends it, `{"status": "failed", "error":
        ..., "traceback": ...}` too. 409 once it has ended.
        """
        body = json_object()
        requests.require_fields(body, ("params", "metrics", "status", "error", "traceback"))
        status = requests.text(body, "status")
        if status not in ("", "succeeded", "failed"):
            raise InvalidRequest(f"status {status!r}; expected succeeded or failed", field="status")
        error, traceback = _long_text(body, "error")[: requests.LONGEST_TEXT], _long_text(body, "traceback")
        after = runs.add(run, params=logged.params(body), metrics=logged.metrics(body))
        if status == "succeeded":
            after = runs.finish(run)
        elif status == "failed":
            after = runs.fail(run, error=error, traceback=traceback)
        return reply(_brief(after))


def _brief(run: Run) -> dict[str, Any]:
    return {name: value for name, value in vars(run).items() if name != "traceback"}


def _long_text(body: dict[str, Any], name: str) -> str:
    """A field of text that is cut where it is too long: its end, where a traceback says most."""
    value = body.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"field {name!r} is no text", field=name)
    return value[-LONGEST_TRACEBACK:]
