"""The HTTP calls about evaluations, and the model cards that show them."""

from __future__ import annotations

from flask import Flask, Response, request

from modelmill.http.web import reply
from modelmill.state.registry import CHAMPION
from services.trainer import requests
from services.trainer.cards.cards import Cards
from services.trainer.evaluation import evaluation
from services.trainer.models.overview import Overview
from services.trainer.recipes import Recipes


def add_card_routes(app: Flask, overview: Overview, recipes: Recipes) -> None:
    """Add them to the trainer."""
    cards = Cards(overview.registry, overview.storage)

    @app.get("/models/<model>/card")
    def champion_card(model: str) -> Response:
        """The card of a model's champion, or of `?alias=`: one HTML page that asks for nothing else."""
        overview.require(recipes.definitions, model)
        return _page(cards.of_alias(model, requests.alias(request.args.get("alias", CHAMPION))))

    @app.get("/models/<model>/versions/<int:version>/card")
    def version_card(model: str, version: int) -> Response:
        """The card of a version."""
        overview.require(recipes.definitions, model)
        return _page(cards.of_version(model, version))

    @app.get("/runs/<run>/card")
    def run_card(run: str) -> Response:
        """The card of a run; of one that failed it says how."""
        return _page(cards.of_run(run))

    @app.get("/runs/<run>/evaluation")
    def run_evaluation(run: str) -> Response:
        """How good a run's model is on its held-out rows: metrics, 95 % intervals, baseline, segments."""
        model = overview.registry.runs.get(run).model
        return reply(evaluation.read(overview.storage, model, run))


def _page(html: str) -> Response:
    return Response(html, content_type="text/html; charset=utf-8")
