"""The HTTP calls about evaluations."""

from __future__ import annotations

from flask import Flask, Response

from modelmill.http.web import reply
from services.trainer.evaluation import evaluation
from services.trainer.models.overview import Overview


def add_evaluation_routes(app: Flask, overview: Overview) -> None:
    """Add them to the trainer."""

    @app.get("/runs/<run>/evaluation")
    def run_evaluation(run: str) -> Response:
        """How good a run's model is on its held-out rows: metrics, 95 % intervals, baseline, segments."""
        model = overview.registry.runs.get(run).model
        return reply(evaluation.read(overview.storage, model, run))
