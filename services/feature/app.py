"""The feature service's HTTP calls: those of all its rooms, put together."""

from __future__ import annotations

from flask import Flask

from modelmill.http.web import create_app, redis_answers
from modelmill.settings import Settings
from services.feature.arguments import KeyInPath
from services.feature.definitions.catalogue import Catalogue
from services.feature.definitions.routes import add_definitions_routes
from services.feature.intake.routes import add_intake_routes
from services.feature.proof.routes import add_proof_routes
from services.feature.store.routes import add_store_routes
from services.feature.store.statistics_files import StatisticsFiles
from services.feature.training.routes import add_training_routes


def feature_app(catalogue: Catalogue, settings: Settings, statistics_files: StatisticsFiles | None = None) -> Flask:
    """The routes of the feature service."""
    files = statistics_files or StatisticsFiles(catalogue.storage)
    app = create_app("feature", settings, {"redis": redis_answers(catalogue.redis)})
    app.url_map.converters["key"] = KeyInPath
    add_intake_routes(app, catalogue)
    add_store_routes(app, catalogue, files)
    add_definitions_routes(app, catalogue, files)
    add_training_routes(app, catalogue)
    add_proof_routes(app, catalogue, files)
    return app
