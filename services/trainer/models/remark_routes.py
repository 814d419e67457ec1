"""The HTTP calls that add tags and notes to versions and runs."""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response

from modelmill.errors import InvalidRequest
from modelmill.http.web import json_object, reply
from modelmill.state.registry import Registry
from services.trainer import requests


def add_remark_routes(app: Flask, registry: Registry) -> None:
    """Add them to the trainer."""

    @app.patch("/models/<model>/versions/<version>/tags")
    def tag_version(model: str, version: str) -> Response:
        """Tag a version, by its number or an alias: `{"stage": "reviewed", "old": null}`; null takes a tag away."""
        number = registry.named(model, version).version
        registry.remarks.tag_version(model, number, requests.tags(json_object()))
        return reply(asdict(registry.version(model, number)))

    @app.post("/models/<model>/versions/<version>/notes")
    def note_version(model: str, version: str) -> Response:
        """Add a note to a version, by its number or an alias: `{"text": ..., "by": ...}`."""
        number = registry.named(model, version).version
        text, by = _note()
        registry.remarks.note_version(model, number, text, by=by)
        return reply(asdict(registry.version(model, number)))

    @app.patch("/runs/<run>/tags")
    def tag_run(run: str) -> Response:
        """Tag a run: `{"stage": "reviewed", "old": null}`; null takes a tag away, other tags stay."""
        registry.remarks.tag_run(run, requests.tags(json_object()))
        return reply(asdict(registry.runs.get(run)))

    @app.post("/runs/<run>/notes")
    def note_run(run: str) -> Response:
        """Add a note to a run: `{"text": ..., "by": ...}`."""
        text, by = _note()
        registry.remarks.note_run(run, text, by=by)
        return reply(asdict(registry.runs.get(run)))


def _note() -> tuple[str, str]:
    """Text and author in the body."""
    body = json_object()
    requests.require_fields(body, ("text", "by"))
    text = requests.text(body, "text")
    if not text.strip():
        raise InvalidRequest("field 'text' is empty; expected what is to be noted")
    return text, requests.text(body, "by")
