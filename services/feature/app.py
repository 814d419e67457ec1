"""The feature service's HTTP calls."""

from __future__ import annotations

import secrets
from dataclasses import asdict

from flask import Flask, Response, request
from prometheus_client import Counter

from modelmill.declarations import Source
from modelmill.errors import InvalidRequest, InvalidRows, MissingEntity, TooLarge
from modelmill.settings import Settings
from modelmill.web import create_app, json_object, redis_answers, reply, spooled_body, streams_body
from services.feature import online
from services.feature.catalogue import Catalogue
from services.feature.decode import decode
from services.feature.encode import ARROW_STREAM, PARQUET, encoded
from services.feature.frame_requests import frame_of_model, frame_of_spine
from services.feature.ingest import ingest
from services.feature.journal import digest_of
from services.feature.overview import features_overview
from services.feature.uploads import READERS

ROWS = Counter("modelmill_rows_total", "Rows of ingest requests by what became of them", ["source", "outcome"])
FAILED = Counter("modelmill_failed_features_total", "Values that a feature function failed to compute", ["feature"])
MAX_LOOKUP = 1000
"""Entities of one lookup."""


def feature_app(catalogue: Catalogue, settings: Settings) -> Flask:
    """The routes of the feature service."""
    redis = catalogue.redis
    app = create_app("feature", settings, {"redis": redis_answers(redis)})

    @app.post("/sources/<source>/rows")
    def add_rows(source: str) -> Response:
        """Ingest rows: CSV, JSON, NDJSON or Parquet, by content type.

        All rows or none, unless `?on_error=skip` asks to keep the good ones. The answer counts accepted and rejected
        rows, those that came late (a newer row of their entity is online) and those of a request that was done before,
        lists the first reasons, and counts failed feature functions.

        A request with the same `Idempotency-Key`, or, for a source with event times, the same content, is done once:
        within an hour it gets the same answer, with its rows counted as `duplicate`.
        """
        on_error = request.args.get("on_error", "fail")
        if on_error not in ("fail", "skip"):
            raise InvalidRequest(f"on_error={on_error!r}; expected fail or skip")
        catalogue.definitions.source(source)
        body, kind = request.get_data(cache=False), request.content_type or "none"
        raw = decode(body, kind)
        digest = _digest(catalogue.definitions.source(source), body, kind, on_error)
        try:
            done = ingest(catalogue, source, raw, digest, skip_bad=on_error == "skip")
        except InvalidRows as error:
            ROWS.labels(source, "rejected").inc(error.fields["rejected"])
            raise
        ROWS.labels(source, "accepted").inc(done.accepted)
        for outcome in ("rejected", "late", "duplicate"):
            ROWS.labels(source, outcome).inc(getattr(done, outcome))
        for feature, count in done.failed_features.items():
            FAILED.labels(feature).inc(count)
        return reply(asdict(done), 201 if done.accepted else 200)

    @app.get("/entities/<entity>/<path:key>")
    def entity(entity: str, key: str) -> Response:
        """The stored features of one entity, with the event time of each source."""
        definitions = catalogue.definitions
        definitions.entity(entity)
        found = online.read(redis, definitions, entity, [key])[0]
        if found is None:
            raise MissingEntity(entity, key)
        return reply({"entity": entity, "key": key, **asdict(found)})

    @app.post("/entities/<entity>/lookup")
    def lookup(entity: str) -> Response:
        """The stored features of several entities: `{"keys": [...]}`; null for one that is not there."""
        definitions = catalogue.definitions
        definitions.entity(entity)
        ids = json_object().get("keys")
        if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
            raise InvalidRequest(f"keys is {ids!r}; expected a list of texts")
        if len(ids) > MAX_LOOKUP:
            raise TooLarge("keys", len(ids), MAX_LOOKUP)
        found = online.read(redis, definitions, entity, ids)
        return reply({"entities": {key: asdict(e) if e else None for key, e in zip(ids, found, strict=True)}})

    @app.get("/features")
    def features() -> Response:
        """Every declared feature: type, source, version and the models that use it."""
        return reply({"features": features_overview(catalogue.definitions)})

    @app.post("/features")
    def apply() -> Response:
        """Apply the definitions file: compute its new and changed features for all stored rows, then put it in force.

        202 where there is something to compute, which goes on in the background; `GET /features/backfill` tells how
        far it is. `{"dry_run": true}` only says what would change. `{"fingerprint": "..."}` insists on the file with
        this SHA-256.
        """
        body = json_object()
        fingerprint = body.get("fingerprint")
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

    @app.post("/training-frames")
    @streams_body
    def frame() -> Response:
        """A training frame: rows joined with the features that were visible at each row's time.

        A model's, of the labelled rows with start <= event time < end, ordered by event time:
        `{"model": ..., "start": ..., "end": ..., "as_of": "event", "detail": false}`. `{"definitions": "..."}` insists
        on definitions with this SHA-256 being in force; 409 where others are.

        Or that of a spine in the body, as CSV or Parquet by content type, with a time column, join keys and any other
        columns, which are carried through: `?model=NAME` or `?features=user.f1,f2&entities=user`, `&time=COLUMN`
        (default `event_time`), `&as_of=`, `&detail=`.

        `as_of=known` hides what had not been ingested by the row's time; `detail=true` adds a column
        `{feature}.status`: present, missing, expired or failed. Streams Parquet, or an Arrow stream where `Accept` asks
        for `application/vnd.apache.arrow.stream`.
        """
        definitions, kind = catalogue.definitions, request.mimetype
        if kind in READERS:
            with spooled_body() as body:
                found = frame_of_spine(catalogue.storage, definitions, body, kind, request.args)
        else:
            found = frame_of_model(catalogue.storage, definitions, json_object())
        answer_kind = ARROW_STREAM if request.accept_mimetypes.best == ARROW_STREAM else PARQUET
        response = Response(encoded(found, answer_kind), content_type=answer_kind)
        response.call_on_close(found.close)  # also where the client goes away before the first piece
        return response

    return app


def _digest(source: Source, body: bytes, kind: str, on_error: str) -> str:
    """What tells a request that comes again from a new one.

    The same rows sent twice to a source without event times are two observations, unless their sender says otherwise.
    """
    if key := request.headers.get("Idempotency-Key"):
        return digest_of(source.name, b"key", key.encode())
    if source.event_time:
        return digest_of(source.name, body, kind.encode(), on_error.encode())
    return secrets.token_hex(16)
