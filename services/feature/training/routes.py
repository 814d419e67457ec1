"""The HTTP call that makes training frames."""

from __future__ import annotations

from flask import Flask, Response, request

from modelmill.http.web import json_object, spooled_body, streams_body, whole
from services.feature.definitions.catalogue import Catalogue
from services.feature.training.encode import ARROW_STREAM, PARQUET, encoded
from services.feature.training.frame_requests import frame_of_model, frame_of_spine
from services.feature.training.uploads import READERS


def add_training_routes(app: Flask, catalogue: Catalogue) -> None:
    """Add it to the feature service."""

    @app.post("/training-frames")
    @streams_body
    def frame() -> Response:
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
                found = frame_of_spine(catalogue.storage, definitions, body, kind, request.args)
        else:
            found = frame_of_model(catalogue.redis, catalogue.storage, definitions, json_object())
        answer_kind = ARROW_STREAM if request.accept_mimetypes.best == ARROW_STREAM else PARQUET
        return whole(encoded(found, answer_kind), answer_kind)
