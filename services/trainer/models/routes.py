"""The HTTP calls about models, their versions and aliases."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response

from modelmill.registry import CHAMPION
from modelmill.web import json_object, reply
from services.trainer import requests
from services.trainer.models.overview import Overview
from services.trainer.recipes import Recipes


def add_model_routes(app: Flask, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""

    @app.get("/models")
    def models() -> Response:
        """Every declared or trained model: policy, schedules, aliases and newest version."""
        return reply({"models": overview.models(recipes.definitions)})

    @app.get("/models/<model>")
    def model(model: str) -> Response:
        """A model: recipe, newest versions, aliases and their history."""
        return reply(overview.model(recipes.definitions, model))

    @app.put("/models/<model>/aliases/<alias>")
    def promote(model: str, alias: str) -> Response:
        """Let an alias name a version: `{"version": 3, "by": ..., "reason": ...}`; predictors serve `champion`.

        The version's package is checked first; a broken one is never promoted.
        """
        body = json_object()
        requests.require_fields(body, ("version", "by", "reason"))
        number = requests.version(body)
        by, reason = requests.text(body, "by"), requests.text(body, "reason")
        overview.require(recipes.definitions, model)
        return reply(asdict(overview.promote(model, number, alias=requests.alias(alias), by=by, reason=reason)))

    @app.post("/models/<model>/rollback")
    def rollback(model: str) -> Response:
        """Let the champion be the version that it was before: `{"by": ..., "reason": ...}`.

        `{"alias": ...}` rolls another alias back. 409 where there is no earlier version.
        """
        body = json_object()
        requests.require_fields(body, ("alias", "by", "reason"))
        alias = requests.alias(requests.text(body, "alias") or CHAMPION)
        by, reason = requests.text(body, "by"), requests.text(body, "reason")
        overview.require(recipes.definitions, model)
        return reply(asdict(overview.rollback(model, alias=alias, by=by, reason=reason)))
