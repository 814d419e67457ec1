"""The feature service's HTTP calls: those of all its rooms, put together."""

from __future__ import annotations

from flask import Flask

from modelmill.http.app import create_app, redis_answers
from modelmill.settings import Settings
from services.feature.definitions.catalogue import Catalogue
from services.feature.http.arguments import KeyInPath
from services.feature.http.definitions import add_definitions_routes
from services.feature.http.proof import add_proof_routes, add_training_routes
from services.feature.http.rows import add_intake_routes, add_store_routes
from services.feature.upkeep.statistics import StatisticsFiles


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
