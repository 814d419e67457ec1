"""The trainer's HTTP calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from modelmill import package
from modelmill.connections import Redis
from modelmill.events import utc_now
from modelmill.package import GRAPH, Manifest
from modelmill.registry import Registry
from modelmill.runs import Run
from modelmill.storage import Storage
from services.trainer.app import trainer_app
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.overview import Overview
from services.trainer.recipes import Recipes
from services.trainer.settings import TrainerSettings
from tests.conftest import USERS_MILL

Train = Callable[[], int]


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


@pytest.fixture
def http(fake_redis: Redis, fake_queue: TrainingQueue, registry: Registry, storage: Storage) -> FlaskClient:
    """A client of the trainer of the users example."""
    overview = Overview(registry, storage)
    return trainer_app(fake_queue, registry, overview, Recipes(fake_redis, USERS_MILL), TrainerSettings()).test_client()


@pytest.fixture
def trained(registry: Registry, storage: Storage) -> Train:
    """A function that registers and promotes one more version of user_target."""

    def train() -> int:
        number = len(registry.versions("user_target")) + 1
        run = Run(id=f"r{number}", model="user_target", started=utc_now(), metrics={"accuracy": 0.9})
        registry.runs.start(run)
        folder = package.write(storage, manifest(run.id), {GRAPH: b"graph"})
        return registry.register(run, folder, promote=True, champion=number - 1 or None).version

    return train


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


def test_a_training_is_accepted_with_its_job(http: FlaskClient) -> None:
    answer = http.post("/models/user_target/train", json={"by": "me", "start": "2026-01-01"})
    assert answer.status_code == 202
    job = answer.json
    assert job["url"] == answer.headers["Location"] == f"/jobs/{job['job']}"
    view = http.get(job["url"]).json
    assert (view["model"], view["status"], view["by"], view["position"]) == ("user_target", "queued", "me", 0)


def test_an_unknown_job_is_not_found_with_the_known_ones(http: FlaskClient) -> None:
    job = http.post("/models/user_target/train").json["job"]
    http.delete(f"/jobs/{job}")  # one that has ended is known too
    assert problem(http, "GET", "/jobs/nope", 404) == f"job 'nope' is not known; known: {job}"


def test_a_training_may_be_asked_for_without_a_body(http: FlaskClient) -> None:
    assert http.post("/models/user_target/train").status_code == 202
    assert [job["model"] for job in http.get("/jobs").json["jobs"]] == ["user_target"]


def test_an_unknown_model_is_not_found_with_the_nearest_name(http: FlaskClient) -> None:
    for method, url in (("POST", "/models/user_targt/train"), ("GET", "/models/user_targt")):
        assert "did you mean 'user_target'" in problem(http, method, url, 404)
    assert "did you mean 'user_target'" in problem(http, "GET", "/runs?model=user_targt", 404)


@pytest.mark.parametrize(
    "body, reason",
    [
        (b'{"strat": "2026-01-01"}', "field 'strat' is not known; did you mean 'start'"),
        (b'{"end": "soon"}', "expected a time such as"),
        (b'{"by": 7}', "field 'by' is 7; expected a text"),
    ],
)
def test_a_body_with_a_mistake_is_refused_by_field(http: FlaskClient, body: bytes, reason: str) -> None:
    assert reason in problem(http, "POST", "/models/user_target/train", 422, data=body)
    assert http.get("/jobs").json["jobs"] == []


def test_a_body_that_is_no_object_is_refused(http: FlaskClient) -> None:
    assert "expected an object" in problem(http, "POST", "/models/user_target/train", 400, data=b"[]")


def test_a_full_queue_says_when_to_come_back(http: FlaskClient) -> None:
    for _ in range(3):
        http.post("/models/user_target/train")
    answer = http.post("/models/user_target/train")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")


def test_a_waiting_job_can_be_canceled_once(http: FlaskClient) -> None:
    url = http.post("/models/user_target/train").json["url"]
    assert http.delete(f"{url}?by=me").json["status"] == "canceled"
    assert "has ended already" in problem(http, "DELETE", url, 409)
    problem(http, "DELETE", "/jobs/unknown", 404)


def test_runs_are_listed_without_and_shown_with_their_traceback(http: FlaskClient, registry: Registry) -> None:
    run = Run(id="r1", model="user_target", started=utc_now())
    registry.runs.start(run)
    registry.runs.fail(run, "no rows", "Traceback ...")
    [listed] = http.get("/runs?model=user_target&limit=5").json["runs"]
    assert listed["error"] == "no rows"
    assert "traceback" not in listed
    assert http.get("/runs/r1").json["traceback"] == "Traceback ..."
    assert "expected a number" in problem(http, "GET", "/runs?limit=0", 422)
    problem(http, "GET", "/runs/r2", 404)


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
