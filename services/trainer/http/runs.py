"""The HTTP calls about searches, and those that repeat runs and trace what was made of what."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response

from modelmill.http.web import json_object, reply
from modelmill.state.registry import Registry
from services.trainer import requests
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.models import Overview
from services.trainer.recipes import Recipes
from services.trainer.trace.compare import reports, require_repeatable
from services.trainer.trace.lineage import Lineage


def add_trace_routes(app: Flask, queue: TrainingQueue, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    runs = overview.registry.runs

    @app.post("/runs/<run>/reproduce")
    def reproduce(run: str) -> Response:
        """Repeat a run in a job and compare what comes out; answers 202 with the job. `{"by": ...}` says who asks.

        The frame is made again as of the recorded position of the history, and fitted by the recorded code. Nothing is
        registered. 409 for a run that did not succeed.
        """
        body = json_object()
        requests.require_fields(body, ("by",))
        found = runs.get(run)
        require_repeatable(found)
        job = queue.repeat(run, found.model, by=requests.text(body, "by"))
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


# --- the HTTP calls about searches


def add_search_routes(app: Flask, registry: Registry) -> None:
    """Add them to the trainer."""

    @app.get("/runs/<run>/trials")
    def trials(run: str) -> Response:
        """The trials of a run's search as runs of their own, in the order of their numbers, without tracebacks.

        A trial whose process was killed has a run for each attempt. `trials` is how many the search has, `trials_ended`
        how many of them have ended and `trials_failed` how many of these failed.
        """
        parent = registry.runs.get(run)
        found = [asdict(trial) for trial in registry.runs.trials(run)]
        return reply(
            {
                "run": run,
                "trials": parent.trials,
                "trials_ended": parent.trials_ended,
                "trials_failed": parent.trials_failed,
                "runs": [{name: trial[name] for name in trial if name != "traceback"} for trial in found],
            }
        )
