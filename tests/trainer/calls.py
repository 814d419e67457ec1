"""What the tests of the trainer's calls share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient

from modelmill.packages.package import Manifest

Train = Callable[[], int]
"""Registers and promotes one more version of user_target and returns its number."""


def manifest(run: str) -> Manifest:
    return Manifest(
        model="user_target", run=run, task="classification", entities={}, inputs=[], layout="matrix",
        tensor_dtype="float32", classes=[0, 1], label="target", metrics={}, example={},
    )  # fmt: skip


def problem(http: FlaskClient, method: str, url: str, status: int, **request: Any) -> str:
    """The sentence of a problem document that the call answers with."""
    answer = http.open(url, method=method, **request)
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    return str(answer.json["detail"])
