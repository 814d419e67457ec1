"""The HTTP calls about runs."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response, request

from modelmill.web import reply
from services.trainer import requests
from services.trainer.models.overview import Overview
from services.trainer.recipes import Recipes


def add_run_routes(app: Flask, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""

    @app.get("/runs")
    def runs() -> Response:
        """The newest runs, of all models or of `?model=`, `?limit=` of them (default 50), without tracebacks."""
        model = request.args.get("model")
        limit = requests.limit(request.args.get("limit"))
        if model is not None:
            overview.require(recipes.definitions, model)
        found = [asdict(run) for run in overview.registry.runs.newest(model, limit)]
        return reply({"runs": [{name: run[name] for name in run if name != "traceback"} for run in found]})

    @app.get("/runs/<run>")
    def run(run: str) -> Response:
        """A run with all that is recorded of it."""
        return reply(asdict(overview.registry.runs.get(run)))
