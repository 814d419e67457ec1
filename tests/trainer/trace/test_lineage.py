"""From an answer to what it was made of, and from a source to what was made of it."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill.declare import applied
from modelmill.declare.definitions import Definitions
from modelmill.declare.definitions_file import load
from modelmill.state import bus
from modelmill.state.connections import Redis
from modelmill.state.events import PredictionFailed, PredictionServed
from modelmill.state.registry import Registry, Version
from modelmill.state.runs import Run
from services.trainer.trace import lineage
from tests.conftest import USERS_MILL
from tests.trainer.calls import problem

POSITION = "2026-11-23T23:47:08.123456Z"


@pytest.fixture
def definitions(fake_redis: Redis) -> Definitions:
    found = load(USERS_MILL)
    applied.keep(fake_redis, found)
    return found


@pytest.fixture
def version(registry: Registry, definitions: Definitions) -> Version:
    """Version 1 of user_target, champion, of the run r1."""
    return train(registry, definitions, "r1")


def train(registry: Registry, definitions: Definitions, run_id: str) -> Version:
    field = definitions.features["users"]["feature_3"].field
    run = Run(
        id=run_id,
        model="user_target",
        started="2026-11-23T23:48:00.000000Z",
        trigger="every",
        by="every 60 s, slot 2026-11-23T23:48:00Z",
        features=["feature_1", "feature_2", "feature_3"],
        fields=["users.feature_1", "users.feature_2", f"users.{field}"],
        rows_train=576,
        rows_test=192,
        data_fingerprint="f" * 64,
        history={"users": POSITION},
        source_rows={"users": 768},
        definitions=definitions.fingerprint,
        decision="promoted: accuracy 0.9 on 192 held-out rows; there is no champion yet",
        metrics={"accuracy": 0.9},
    )
    registry.runs.start(run)
    champion = registry.aliases("user_target").get("champion")
    return registry.register(run, f"packages/user_target/{run_id}", promote=True, champion=champion)


def serve(redis: Redis, name: str = "abc", rows: int = 2) -> None:
    bus.append(redis, PredictionServed(
        id=name, model="user_target", version=1, latency_ms=2.0, rows=rows, predictions=list(range(rows)),
        features={"feature_1": [float(n) for n in range(rows)]}, keys={"user": [f"u{n}" for n in range(rows)]},
    ))  # fmt: skip


def asked(http: FlaskClient, of: str) -> dict[str, Any]:
    answer = http.get(f"/lineage/{of}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_a_prediction_leads_to_version_run_frame_sources_features_code_and_trigger(
    http: FlaskClient, fake_redis: Redis, version: Version, definitions: Definitions
) -> None:
    serve(fake_redis)
    found = asked(http, "abc")
    assert found["kind"] == "prediction"
    assert found["prediction"]["keys"] == {"user": ["u0", "u1"]}
    assert (found["version"]["version"], found["version"]["aliases"]) == (1, ["champion"])
    assert (found["run"]["id"], found["run"]["decision"][:8]) == ("r1", "promoted")
    assert found["frame"]["data_fingerprint"] == "f" * 64
    assert found["sources"] == {"users": {"known_until": POSITION, "rows": 768}}
    assert found["trigger"] == {"kind": "every", "by": "every 60 s, slot 2026-11-23T23:48:00Z"}
    features = {feature["name"]: feature for feature in found["features"]}
    assert features["feature_1"]["kind"] == "column"
    assert features["feature_3"]["version"] == definitions.features["users"]["feature_3"].version
    assert features["feature_3"]["code"] == 'def feature_3(row):\n    return row["feature_1"] ** 2'
    assert found["code"]["file"] == "runs/user_target/r1/mill.py"


def test_one_instance_of_a_prediction_is_told_alone(http: FlaskClient, fake_redis: Redis, version: Version) -> None:
    serve(fake_redis)
    prediction = asked(http, "abc-1")["prediction"]
    assert (prediction["id"], prediction["rows"], prediction["predictions"]) == ("abc-1", 1, [1])
    assert (prediction["keys"], prediction["features"]) == ({"user": ["u1"]}, {"feature_1": [1.0]})
    assert "expected 0 to 1" in problem(http, "GET", "/lineage/abc-2", 422)


def test_a_prediction_is_found_among_many(
    http: FlaskClient, fake_redis: Redis, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "PREDICTIONS_PER_PAGE", 2)
    for number in range(7):
        serve(fake_redis, f"p{number}")
    assert [asked(http, f"p{number}")["prediction"]["id"] for number in (0, 3, 6)] == ["p0", "p3", "p6"]


def test_a_prediction_that_is_kept_no_more_is_said_to_be(http: FlaskClient, fake_redis: Redis) -> None:
    assert problem(http, "GET", "/lineage/gone", 404) == "'gone' is no run, and the log of predictions is empty"
    serve(fake_redis)
    said = problem(http, "GET", "/lineage/gone", 404)
    assert said.startswith(
        "'gone' is no run, and not among the 1 predictions that are kept, of which the oldest is of "
    )


def test_a_prediction_that_failed_says_with_what(http: FlaskClient, fake_redis: Redis) -> None:
    failed = PredictionFailed(id="bad", model="m", version=0, latency_ms=1.0, status=422, error="no such input")
    bus.append(fake_redis, failed)
    assert asked(http, "bad")["prediction"]["error"] == "no such input"


def test_a_version_is_named_by_number_or_alias_and_tells_its_moves(
    http: FlaskClient, registry: Registry, definitions: Definitions, version: Version
) -> None:
    train(registry, definitions, "r2")
    registry.rollback("user_target", by="me", reason="worse")
    by_alias, by_number = asked(http, "user_target@champion"), asked(http, "user_target@1")
    assert by_alias["version"] == by_number["version"]
    moves = [(move["kind"], move["previous"], move["version"], move["by"]) for move in by_number["version"]["moves"]]
    assert moves == [("promote", None, 1, "trainer"), ("promote", 1, 2, "trainer"), ("rollback", 2, 1, "me")]
    assert problem(http, "GET", "/lineage/user_target@7", 404).startswith("version '7' is not known")
    assert problem(http, "GET", "/lineage/user_target@champ", 404) == (
        "alias 'champ' is not known; did you mean 'champion'?"
    )
    assert problem(http, "GET", "/lineage/nothing@champion", 404).startswith("model 'nothing' is not known")


def test_a_run_that_failed_has_no_version(http: FlaskClient, registry: Registry, definitions: Definitions) -> None:
    run = Run(id="r3", model="user_target", started="2026-11-23T23:48:00.000000Z", definitions=definitions.fingerprint)
    registry.runs.start(run)
    registry.runs.fail(run, "no rows", "")
    found = asked(http, "r3")
    assert (found["kind"], found["version"], found["run"]["error"]) == ("run", None, "no rows")


def test_features_whose_code_is_kept_no_more_are_still_named(
    http: FlaskClient, registry: Registry, fake_redis: Redis, definitions: Definitions, version: Version
) -> None:
    fake_redis.delete(f"definitions:{definitions.fingerprint}")
    features = asked(http, "r1")["features"]
    assert [feature["name"] for feature in features] == ["feature_1", "feature_2", "feature_3"]
    assert all("is not known" in feature["problem"] for feature in features)


def test_a_source_leads_to_features_models_runs_versions_and_aliases(
    http: FlaskClient, registry: Registry, definitions: Definitions, version: Version
) -> None:
    train(registry, definitions, "r2")
    found = asked(http, "sources/users")
    assert found["models"] == ["user_target"]
    assert {feature["name"]: feature["models"] for feature in found["features"]} == {
        "feature_1": ["user_target"], "feature_2": ["user_target"], "feature_3": ["user_target"], "target": [],
    }  # fmt: skip
    assert [(run["id"], run["rows"], run["known_until"]) for run in found["runs"]] == [
        ("r2", 768, POSITION), ("r1", 768, POSITION),
    ]  # fmt: skip
    assert [(one["version"], one["aliases"]) for one in found["versions"]] == [(2, ["champion"]), (1, [])]
    assert problem(http, "GET", "/lineage/sources/user", 404) == ("source 'user' is not known; did you mean 'users'?")


def test_a_repetition_is_refused_before_it_waits_where_it_cannot_be(http: FlaskClient, version: Version) -> None:
    assert problem(http, "POST", "/runs/r0/reproduce", 404, json={}).startswith("run 'r0' is not known")
    assert problem(http, "POST", "/runs/r1/reproduce", 422, json={"who": "me"}).startswith("field 'who' is not known")
    answer = http.post("/runs/r1/reproduce", json={"by": "me"})
    assert answer.status_code == 202
    job = http.get(answer.json["url"]).json
    assert (job["status"], job["run"], job["trigger"], job["by"]) == ("queued", "r1", "reproduce", "me")
