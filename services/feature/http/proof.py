"""The HTTP calls that make training frames, and that prove, explain, erase and restore what the feature store holds."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from flask import Flask, Response, request
from pydantic import Field

from modelmill import times
from modelmill.errors import InvalidRequest
from modelmill.http.app import reply, whole
from modelmill.http.bodies import asked, describes, spooled_body, streams_body, takes
from modelmill.times import iso
from services.feature.definitions.catalogue import Catalogue
from services.feature.http.arguments import Asked, KeyQuery, Mode, Moment, entity_key
from services.feature.http.frame_requests import (
    ARROW_STREAM,
    PARQUET,
    READERS,
    FrameOf,
    SpineQuery,
    encoded,
    frame_of_model,
    frame_of_spine,
    last_moment,
)
from services.feature.proof.audit import audit
from services.feature.proof.explain import explain
from services.feature.proof.forget import forget
from services.feature.rows.schema import FIRST_TIME, LAST_TIME
from services.feature.upkeep import rebuild as rebuilds
from services.feature.upkeep.statistics import StatisticsFiles


class ExplainQuery(KeyQuery):
    """The time whose features are explained, and by which times rows were visible then."""

    at: Moment = None
    as_of: Mode = "event"


class ForgetQuery(KeyQuery):
    """Who lets an entity be forgotten, and why."""

    by: str = Field("", description="a text")
    reason: str = Field("", description="a text")


class Audit(Asked):
    """Which predictions are compared."""

    model: str = Field(description="a text")
    since: str = Field("1h", description="a length of time such as 1h")


class Rebuild(Asked):
    """What is restored."""

    entity: str | None = Field(None, description="a text")


def add_proof_routes(app: Flask, catalogue: Catalogue, files: StatisticsFiles) -> None:
    """Add them to the feature service."""
    redis, storage = catalogue.redis, catalogue.storage

    @app.get("/entities/<entity>/explain")
    @app.get("/entities/<entity>/<key:key>/explain")
    @takes(ExplainQuery)
    def explain_entity(entity: str, query: ExplainQuery, key: str | None = None) -> Response:
        """Why each feature of an entity is what it is: value, status, reason, source row, times, file and version.

        As the online store has it now, with whether that equals the history; or `?at=2013-01-31T12:00:00Z` as a
        training frame would see it at that time, `&as_of=known` hiding what had not been ingested by then. The key
        stands in `?key=` or in the path.
        """
        key, definitions, at = entity_key(key), catalogue.definitions, query.at
        last = last_moment(definitions, definitions.features_of(entity).values()) or LAST_TIME
        if at and not FIRST_TIME <= at <= last:
            raise InvalidRequest(f"at is {iso(at)}; expected a time from {iso(FIRST_TIME)} to {iso(last)} (max_future)")
        return reply(asdict(explain(redis, storage, definitions, entity, key, at, query.as_of)))

    @app.delete("/entities/<entity>")
    @app.delete("/entities/<entity>/<key:key>")
    @takes(ForgetQuery)
    def forget_entity(entity: str, query: ForgetQuery, key: str | None = None) -> Response:
        """Erase all that is stored of an entity: online, history, tiles, quarantine, predictions; answers the receipt.

        `?by=` and `?reason=` are kept in the receipt, which holds of the key only its SHA-256. Asked again it goes on
        where it was killed, or answers the former receipt. 409 while ingests that began before have not ended, or tiles
        of aggregates are not filled. The key stands in `?key=` or in the path.
        """
        done = forget(catalogue, files, entity, entity_key(key), by=query.by, reason=query.reason)
        return reply(asdict(done))

    @app.post("/audits")
    @takes(Audit)
    def audit_model(body: Audit) -> Response:
        """Compare the features that predictions were served with, bit for bit, with what was known at their times.

        `{"model": "user_target", "since": "1h"}`. Counts predictions, rows and values that were compared, those that
        are equal, in flight (explained by a row that was just being ingested) or different, with the first 20 of
        these, and why others could not be compared.
        """
        return reply(asdict(audit(redis, storage, body.model, _since(body.since))))

    @app.post("/rebuild")
    @takes(Rebuild)
    def rebuild(body: Rebuild) -> Response:
        """Restore the online store from history in the background, all of it or of one `{"entity": "user"}`.

        202; `GET /rebuild` tells how far it is. 409 while one is running.
        """
        return reply(rebuilds.begin(catalogue, body.entity), 202, {"Location": "/rebuild"})

    @app.get("/rebuild")
    def rebuild_state() -> Response:
        """How far the last rebuild of the online store is: state (running, done, failed), rows, and why it failed."""
        return reply(rebuilds.read(redis))


def _since(text: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(seconds=times.seconds(text))
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"since: {error}") from None


# --- the HTTP call that makes training frames.


def add_training_routes(app: Flask, catalogue: Catalogue) -> None:
    """Add it to the feature service."""

    @app.post("/training-frames")
    @streams_body
    @takes(SpineQuery)
    @describes(FrameOf)
    def frame(query: SpineQuery) -> Response:
        """A training frame: rows joined with the features that were visible at each row's time.

        A model's, of the labelled rows with start <= event time < end, ordered by event time:
        `{"model": ..., "start": ..., "end": ..., "as_of": "event", "detail": false}`. `{"definitions": "..."}` insists
        on definitions with this SHA-256 being in force; 409 where others are. What it was made of is in the metadata of
        its schema, under `origin`: source to `known_until`, the position of its history, and `rows`. Sent as
        `{"known_until": {source: position}}`, or as one time, it hides what was ingested later, and takes also
        definitions that are no longer in force: so a former frame is made again.

        Or that of a spine in the body, as CSV or Parquet by content type, with a time column, join keys and any other
        columns, which are carried through: `?model=NAME` or `?features=user.f1,f2&entities=user`, `&time=COLUMN`
        (default `event_time`), `&as_of=`, `&detail=`.

        `as_of=known` hides what had not been ingested by the row's time; `detail=true` adds a column
        `{feature}.status`: present, missing, expired or failed. Answers Parquet, or an Arrow stream where `Accept` asks
        for `application/vnd.apache.arrow.stream`, once all of it is made: whole, with its length, or an error.
        """
        definitions, kind = catalogue.definitions, request.mimetype
        if kind in READERS:
            with spooled_body() as body:
                found = frame_of_spine(catalogue.storage, definitions, body, kind, query)
        else:
            found = frame_of_model(catalogue.redis, catalogue.storage, definitions, asked(FrameOf))
        answer_kind = ARROW_STREAM if request.accept_mimetypes.best == ARROW_STREAM else PARQUET
        return whole(encoded(found, answer_kind), answer_kind)
