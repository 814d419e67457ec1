"""The HTTP calls that prove, explain, erase and restore what the feature store holds."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask, Response, request

from modelmill import times
from modelmill.errors import InvalidRequest
from modelmill.http.web import json_object, reply
from modelmill.state.events import iso
from services.feature.arguments import entity_key, moment
from services.feature.definitions.catalogue import Catalogue
from services.feature.intake.checks import FIRST_TIME, LAST_TIME
from services.feature.proof.audit import audit
from services.feature.proof.explain import explain
from services.feature.proof.forget import forget
from services.feature.store import rebuild as rebuilds
from services.feature.store.statistics_files import StatisticsFiles
from services.feature.training.frame_requests import as_of_mode, last_moment


def add_proof_routes(app: Flask, catalogue: Catalogue, files: StatisticsFiles) -> None:
    """Add them to the feature service."""
    redis, storage = catalogue.redis, catalogue.storage

    @app.get("/entities/<entity>/explain")
    @app.get("/entities/<entity>/<key:key>/explain")
    def explain_entity(entity: str, key: str | None = None) -> Response:
        """Why each feature of an entity is what it is: value, status, reason, source row, times, file and version.

        As the online store has it now, with whether that equals the history; or `?at=2013-01-31T12:00:00Z` as a
        training frame would see it at that time, `&as_of=known` hiding what had not been ingested by then. The key
        stands in `?key=` or in the path.
        """
        key = entity_key(key, "at", "as_of")
        definitions, at = catalogue.definitions, moment(request.args, "at")
        as_of = as_of_mode(request.args.get("as_of", "event"))
        last = last_moment(definitions, definitions.features_of(entity).values()) or LAST_TIME
        if at and not FIRST_TIME <= at <= last:
            raise InvalidRequest(f"at is {iso(at)}; expected a time from {iso(FIRST_TIME)} to {iso(last)} (max_future)")
        return reply(asdict(explain(redis, storage, definitions, entity, key, at, as_of)))

    @app.delete("/entities/<entity>")
    @app.delete("/entities/<entity>/<key:key>")
    def forget_entity(entity: str, key: str | None = None) -> Response:
        """Erase all that is stored of an entity: online, history, tiles, quarantine, predictions; answers the receipt.

        `?by=` and `?reason=` are kept in the receipt, which holds of the key only its SHA-256. Asked again it goes on
        where it was killed, or answers the former receipt. 409 while ingests that began before have not ended, or tiles
        of aggregates are not filled. The key stands in `?key=` or in the path.
        """
        key = entity_key(key, "by", "reason")
        by, reason = request.args.get("by", ""), request.args.get("reason", "")
        return reply(asdict(forget(catalogue, files, entity, key, by=by, reason=reason)))

    @app.post("/audits")
    def audit_model() -> Response:
        """Compare the features that predictions were served with, bit for bit, with what was known at their times.

        `{"model": "user_target", "since": "1h"}`. Counts predictions, rows and values that were compared, those that
        are equal, in flight (explained by a row that was just being ingested) or different, with the first 20 of
        these, and why others could not be compared.
        """
        body = json_object()
        model = body.get("model")
        if not isinstance(model, str):
            raise InvalidRequest(f"model is {model!r}; expected a text")
        return reply(asdict(audit(redis, storage, model, _since(body.get("since", "1h")))))

    @app.post("/rebuild")
    def rebuild() -> Response:
        """Restore the online store from history in the background, all of it or of one `{"entity": "user"}`.

        202; `GET /rebuild` tells how far it is. 409 while one is running.
        """
        entity = json_object().get("entity")
        if not isinstance(entity, str | None):
            raise InvalidRequest(f"entity is {entity!r}; expected a text")
        return reply(rebuilds.begin(catalogue, entity), 202, {"Location": "/rebuild"})

    @app.get("/rebuild")
    def rebuild_state() -> Response:
        """How far the last rebuild of the online store is: state (running, done, failed), rows, and why it failed."""
        return reply(rebuilds.read(redis))


def _since(text: Any) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(seconds=times.seconds(text))
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"since: {error}") from None
