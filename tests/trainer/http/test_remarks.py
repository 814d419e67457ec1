"""The calls that add tags and notes."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.trainer.calls import Train, problem


@pytest.mark.parametrize("of", ["/models/user_target/versions/1", "/models/user_target/versions/champion", "/runs/r1"])
def test_versions_and_runs_take_tags_and_notes(http: FlaskClient, trained: Train, of: str) -> None:
    trained()
    http.patch(f"{of}/tags", json={"stage": "draft", "old": "x"})
    assert http.patch(f"{of}/tags", json={"stage": "reviewed", "old": None}).json["tags"] == {"stage": "reviewed"}
    assert list(http.post(f"{of}/notes", json={"text": "good", "by": "me"}).json["notes"].values()) == ["me: good"]
    found = http.get(of.replace("champion", "1")).json
    assert (found["tags"], list(found["notes"].values())) == ({"stage": "reviewed"}, ["me: good"])


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("PATCH", "/runs/r1/tags", {}, 422),
        ("PATCH", "/runs/r1/tags", {"a b": "c"}, 422),
        ("PATCH", "/runs/r1/tags", {"a": 1}, 422),
        ("PATCH", "/runs/nope/tags", {"a": "b"}, 404),
        ("PATCH", "/models/user_target/versions/9/tags", {"a": "b"}, 404),
        ("POST", "/runs/r1/notes", {"text": " "}, 422),
        ("POST", "/runs/r1/notes", {"text": "x", "at": "now"}, 422),
        ("POST", "/models/user_target/versions/9/notes", {"text": "x"}, 404),
        ("POST", "/models/user_target/versions/stable/notes", {"text": "x"}, 404),
    ],
)
def test_what_cannot_be_said_is_refused(
    http: FlaskClient, trained: Train, method: str, path: str, body: dict[str, Any], status: int
) -> None:
    trained()
    problem(http, method, path, status, json=body)
