"""The HTTP calls that tell of the features in force and put another definitions file in force."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response

from modelmill.errors import InvalidRequest
from modelmill.http.web import json_object, reply
from services.feature.definitions.catalogue import Catalogue
from services.feature.definitions.overview import features_overview
from services.feature.store.statistics_files import StatisticsFiles


def add_definitions_routes(app: Flask, catalogue: Catalogue, files: StatisticsFiles) -> None:
    """Add them to the feature service."""

    @app.get("/features")
    def features() -> Response:
        """Every declared feature: type, source, version, owner, the models that use it, freshness and null share.

        `newest` is the newest event time of its source's rows, `null_share` the share of these without a value, which
        an aggregate has not. A request-time feature has neither, no entity and no source; it says what it `needs`.
        """
        return reply({"features": features_overview(catalogue.definitions, files.of)})

    @app.post("/features")
    def apply() -> Response:
        """Apply the definitions file: compute its new and changed features for all stored rows, then put it in force.

        202 where there is something to compute, which goes on in the background; `GET /features/backfill` tells how
        far it is. `{"dry_run": true}` only says what would change. `{"fingerprint": "..."}` insists on the file with
        this SHA-256; `{"versions": {"users.feature_3": "..."}}` on functions that are these versions, as another
        process has found: a function of which each process finds another one is refused.
        """
        body = json_object()
        fingerprint = body.get("fingerprint")
        versions = body.get("versions") or {}
        if not isinstance(versions, dict):
            raise InvalidRequest(f"versions={versions!r}; expected an object of names to versions")
        catalogue.require_versions(fingerprint, versions)
        if body.get("dry_run"):
            return reply(asdict(catalogue.plan(fingerprint)))
        if catalogue.lacking(fingerprint):
            url = "/features/backfill"
            return reply(asdict(catalogue.begin(fingerprint)) | {"url": url}, 202, {"Location": url})
        return reply(asdict(catalogue.apply(fingerprint)))

    @app.get("/features/backfill")
    def backfill() -> Response:
        """How far the last application of definitions is: state (running, done, failed), rows, and why it failed."""
        return reply(catalogue.progress.read())
