"""The calls about models and versions."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill.declare.declarations import KEEP
from modelmill.packages import package
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from tests.trainer.calls import Train, problem


def test_models_are_listed_whether_trained_or_only_declared(
    http: FlaskClient, registry: Registry, trained: Train
) -> None:
    registry.runs.start(Run(id="old", model="gone_from_the_file", started=utc_now()))
    gone, users = http.get("/models").json["models"]
    assert (gone["name"], gone["declared"], gone["latest"]) == ("gone_from_the_file", False, None)
    assert users == {
        "name": "user_target", "declared": True, "metric": "accuracy", "promote": "auto",
        "gates": ["at_least(accuracy, 0.7)"], "train": ["every 60 s"],
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


def test_a_version_is_shown_with_all_that_is_recorded_of_it(http: FlaskClient, trained: Train) -> None:
    trained()
    found = http.get("/models/user_target/versions/1").json
    assert (found["run"], found["metrics"], found["gates"], found["tags"]) == ("r1", {"accuracy": 0.9}, {}, {})
    assert "version '2' is not known" in problem(http, "GET", "/models/user_target/versions/2", 404)


def test_pruning_says_what_goes_and_then_does_it(http: FlaskClient, trained: Train, storage: Storage) -> None:
    for _ in range(KEEP + 2):
        trained()
    planned = http.post("/models/user_target/prune", json={"dry_run": True}).json
    assert (planned["keep"], [removal["version"] for removal in planned["removed"]]) == (KEEP, [1, 2])
    assert planned["bytes"] == sum(storage.sizes(package.location("user_target", run))[name] for run in ("r1", "r2")
                                   for name in storage.sizes(package.location("user_target", run)))  # fmt: skip
    assert planned["kept"]["3"] == "one of the newest 20"
    done = http.post("/models/user_target/prune", json={"by": "me"}).json
    assert {**done, "dry_run": True} == planned
    assert http.post("/models/user_target/prune").json["removed"] == []
    assert storage.names(package.location("user_target", "r1"), "") == []
    gone = http.get("/models/user_target/versions/1").json
    assert (gone["pruned_because"], gone["freed"]) == ("keep=20", planned["removed"][0]["bytes"])


@pytest.mark.parametrize("body", [{"dry_run": "yes"}, {"keep": 3}])
def test_pruning_takes_no_other_fields(http: FlaskClient, trained: Train, body: dict[str, Any]) -> None:
    trained()
    problem(http, "POST", "/models/user_target/prune", 422, json=body)
