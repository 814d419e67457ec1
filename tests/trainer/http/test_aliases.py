"""The calls that move aliases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill.packages import package
from modelmill.packages.package import GRAPH
from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from tests.trainer.calls import Train, manifest, problem

CHAMPION = "/models/user_target/aliases/champion"
ROLLBACK = "/models/user_target/rollback"


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
        ("/models/user_target/aliases/champion", {"version": 1, "force": "yes", "reason": "x"}, 422),
        ("/models/user_target/aliases/champion", {"version": 1, "expected": "two"}, 422),
        ("/models/user_target/aliases/champion", {"version": 1, "expected": -1}, 422),
        ("/models/user_target/aliases/champion", {"version": 1, "if": 2}, 422),
        ("/models/user_target/aliases/a%20b", {"version": 1}, 422),
        ("/models/unknown/aliases/champion", {"version": 1}, 404),
    ],
)
def test_a_promotion_that_cannot_be_is_refused(
    http: FlaskClient, trained: Train, url: str, body: dict[str, Any], status: int
) -> None:
    trained()
    problem(http, "PUT", url, status, json=body)


def test_a_promotion_may_say_which_version_it_replaces(http: FlaskClient, trained: Train) -> None:
    for _ in range(3):
        trained()
    answer = http.put(CHAMPION, json={"version": 1, "expected": 2})
    assert (answer.status_code, answer.json["present"], answer.json["expected"]) == (409, 3, 2)
    assert http.put(CHAMPION, json={"version": 1, "expected": 3}).json["version"] == 1
    assert http.put("/models/user_target/aliases/stable", json={"version": 2, "expected": 0}).json["previous"] is None


def test_an_alias_is_deleted_and_its_history_stays(http: FlaskClient, trained: Train) -> None:
    for _ in range(2):
        trained()
    assert http.delete(f"{CHAMPION}?expected=1").status_code == 409
    gone = http.delete(f"{CHAMPION}?expected=2&by=me&reason=withdrawn").json
    assert (gone["kind"], gone["version"], gone["previous"], gone["reason"]) == ("delete", None, 2, "withdrawn")
    assert http.get("/models/user_target").json["aliases"] == {}
    history = http.get("/models/user_target/history").json["history"]
    assert [(move["kind"], move["version"]) for move in history] == [("delete", None), ("promote", 2), ("promote", 1)]
    problem(http, "DELETE", CHAMPION, 404)
    problem(http, "DELETE", f"{CHAMPION}?force=1", 422)


def test_the_history_is_of_one_alias_and_bounded_if_asked(http: FlaskClient, trained: Train) -> None:
    for _ in range(3):
        trained()
    http.put("/models/user_target/aliases/stable", json={"version": 2})
    of_champion = http.get("/models/user_target/history?alias=champion&limit=2").json["history"]
    assert [move["version"] for move in of_champion] == [3, 2]


def test_rollback_to_a_version_walks_there_at_once(http: FlaskClient, trained: Train) -> None:
    for _ in range(4):
        trained()
    assert http.post(ROLLBACK, json={"to": 2}).json["version"] == 2
    assert "did not name version 3" in problem(http, "POST", ROLLBACK, 409, json={"to": 3})
    assert http.post(ROLLBACK).json["version"] == 1


def test_rollback_to_what_is_not_computed_any_more_names_it(
    http: FlaskClient, trained: Train, registry: Registry, storage: Storage
) -> None:
    run = Run(id="old", model="user_target", started=utc_now(), fields=["users.feature_1", "users.feature_3@0badc0de"])
    registry.runs.start(run)
    registry.register(run, package.write(storage, manifest("old"), {GRAPH: b"graph"}), promote=True, champion=None)
    for _ in range(5):
        trained()
    assert http.post(ROLLBACK, json={"to": 1}).status_code == 200, "as far as rollbacks go, all stays in its place"
    http.put(CHAMPION, json={"version": 6})
    for _ in range(5):
        trained()
    reason = problem(http, "POST", ROLLBACK, 409, json={"to": 1})
    assert "served from users.feature_3@0badc0de, which the feature store does not hold any more" in reason
    assert http.post(ROLLBACK, json={"to": 1, "force": True}).json["version"] == 1


@pytest.fixture
def failing(registry: Registry, storage: Storage, trained: Train) -> int:
    """A version that failed a gate."""
    trained()
    run = Run(id="poor", model="user_target", started=utc_now(), gates={"improves": "failed: no better"})
    registry.runs.start(run)
    run = replace(run, package=package.write(storage, manifest("poor"), {GRAPH: b"graph"}))
    return registry.register(run, run.package, promote=False, champion=1).version


def test_a_version_that_failed_a_gate_becomes_champion_only_by_force_with_a_reason(
    http: FlaskClient, failing: int
) -> None:
    refused = problem(http, "PUT", CHAMPION, 409, json={"version": failing})
    assert "did not pass its gates (improves: failed: no better)" in refused
    problem(http, "PUT", CHAMPION, 422, json={"version": failing, "force": True, "reason": " "})
    forced = http.put(CHAMPION, json={"version": failing, "force": True, "by": "me", "reason": "1 is down"}).json
    assert (forced["version"], forced["forced"], forced["reason"]) == (failing, ["improves"], "1 is down")
    [note] = http.get(f"/models/user_target/versions/{failing}").json["notes"].values()
    assert note == "me: forced as champion over improves: 1 is down"


def test_other_aliases_may_name_a_version_that_failed_a_gate(http: FlaskClient, failing: int) -> None:
    assert http.put("/models/user_target/aliases/shadow", json={"version": failing}).json["forced"] == []


def test_a_pruned_version_is_named_with_when_and_why(http: FlaskClient, trained: Train, registry: Registry) -> None:
    for _ in range(2):
        trained()
    registry.redis.hset(keys.version("user_target", 1), mapping={"pruned": "2026-11-25", "pruned_because": "keep=1"})
    for method, url, body in (("PUT", CHAMPION, {"version": 1}), ("POST", ROLLBACK, {})):
        assert "was pruned at 2026-11-25 (keep=1)" in problem(http, method, url, 409, json=body)
