"""The calls about models and aliases."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill import package
from modelmill.events import utc_now
from modelmill.package import GRAPH
from modelmill.registry import Registry
from modelmill.runs import Run
from modelmill.storage import Storage
from tests.trainer.http import Train, problem


def test_models_are_listed_whether_trained_or_only_declared(
    http: FlaskClient, registry: Registry, trained: Train
) -> None:
    registry.runs.start(Run(id="old", model="gone_from_the_file", started=utc_now()))
    gone, users = http.get("/models").json["models"]
    assert (gone["name"], gone["declared"], gone["latest"]) == ("gone_from_the_file", False, None)
    assert users == {
        "name": "user_target", "declared": True, "metric": "accuracy", "promote": "always", "train": ["every 60 s"],
        "aliases": {}, "latest": None,
    }  # fmt: skip
    trained()
    assert http.get("/models").json["models"][1]["aliases"] == {"champion": 1}


def test_a_model_is_shown_with_its_versions_and_history(http: FlaskClient, trained: Train) -> None:
    for _ in range(2):
        trained()
    found = http.get("/models/user_target").json
    assert (found["metrics"], found["segments"], found["split"]) == (["accuracy"], [], "at_random(0.25, seed=0)")
    assert [version["version"] for version in found["versions"]] == [2, 1]
    assert [(move["alias"], move["version"], move["previous"]) for move in found["history"]] == [
        ("champion", 1, None),
        ("champion", 2, 1),
    ]
    assert found["features"] == ["feature_1", "feature_2", "feature_3"]


def test_an_alias_moves_by_hand_and_rolls_back(http: FlaskClient, trained: Train) -> None:
    for _ in range(2):
        trained()
    url = "/models/user_target/aliases/champion"
    moved = http.put(url, json={"version": 1, "by": "me", "reason": "2 is slow"}).json
    assert (moved["version"], moved["previous"], moved["by"], moved["reason"]) == (1, 2, "me", "2 is slow")
    back = http.post("/models/user_target/rollback", json={"by": "me"}).json
    assert (back["version"], back["kind"]) == (2, "rollback")
    assert http.get("/models/user_target").json["aliases"] == {"champion": 2}


def test_a_first_version_cannot_be_rolled_back(http: FlaskClient, trained: Train) -> None:
    trained()
    assert "nothing to roll back to" in problem(http, "POST", "/models/user_target/rollback", 409)


def test_a_broken_package_is_never_promoted(http: FlaskClient, trained: Train, storage: Storage) -> None:
    for _ in range(2):
        trained()
    storage.write(f"{package.location('user_target', 'r1')}/{GRAPH}", b"altered")
    reason = problem(http, "PUT", "/models/user_target/aliases/champion", 503, json={"version": 1})
    assert "model.onnx differs from its SHA-256" in reason
    problem(http, "POST", "/models/user_target/rollback", 503)
    assert http.get("/models/user_target").json["aliases"] == {"champion": 2}


@pytest.mark.parametrize(
    "url, body, status",
    [
        ("/models/user_target/aliases/champion", {"version": 9}, 404),
        ("/models/user_target/aliases/champion", {"version": "1"}, 422),
        ("/models/user_target/aliases/champion", {"version": 1, "force": True}, 422),
        ("/models/user_target/aliases/a%20b", {"version": 1}, 422),
        ("/models/unknown/aliases/champion", {"version": 1}, 404),
    ],
)
def test_a_promotion_that_cannot_be_is_refused(
    http: FlaskClient, trained: Train, url: str, body: dict[str, Any], status: int
) -> None:
    trained()
    problem(http, "PUT", url, status, json=body)
