"""The HTTP calls about models and their versions."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response

from modelmill.declare.declarations import KEEP
from modelmill.http.web import json_object, reply
from services.trainer import requests
from services.trainer.models.overview import Overview
from services.trainer.models.retention import Retention
from services.trainer.recipes import Recipes


def add_model_routes(app: Flask, overview: Overview, retention: Retention, recipes: Recipes) -> None:
    """Add them to the trainer."""

    @app.get("/models")
    def models() -> Response:
        """Every declared or trained model: policy, schedules, aliases and newest version."""
        return reply({"models": overview.models(recipes.definitions)})

    @app.get("/models/<model>")
    def model(model: str) -> Response:
        """A model: recipe, newest versions, aliases and their newest moves."""
        return reply(overview.model(recipes.definitions, model))

    @app.get("/models/<model>/versions/<int:version>")
    def version(model: str, version: int) -> Response:
        """A version with all that is recorded of it: metrics, gates, tags, notes, and whether it was pruned."""
        return reply(asdict(overview.registry.version(model, version)))

    @app.post("/models/<model>/prune")
    def prune(model: str) -> Response:
        """Remove packages and run files of old versions, as the model's `keep` says: `{"dry_run": true, "by": ...}`.

        Never what an alias names, what five rollbacks return to, or what the monitor counts predictions of. With
        `dry_run` the answer says what would go and how many bytes. The records of versions and runs stay.
        """
        body = json_object()
        requests.require_fields(body, ("dry_run", "by"))
        overview.require(recipes.definitions, model)
        recipe = recipes.definitions.models.get(model)
        done = retention.prune(
            model,
            recipe.keep if recipe else KEEP,
            by=requests.text(body, "by"),
            dry_run=requests.switch(body, "dry_run"),
        )
        return reply({**asdict(done), "bytes": done.bytes})
