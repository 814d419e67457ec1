"""Evaluations over HTTP."""

from __future__ import annotations

from flask.testing import FlaskClient

from modelmill.state.events import utc_now
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.trainer.evaluation import evaluation
from services.trainer.evaluation.evaluation import Evaluation, Interval, Segment

FOUND = Evaluation(
    rows=40,
    split="at random",
    metrics={"accuracy": 0.9},
    intervals={"accuracy": Interval(0.8, 0.95, "1000 resamples of 40 rows")},
    segments={"shop": {"north": Segment(30, {"accuracy": 0.95})}},
)


def test_a_run_answers_with_its_evaluation(http: FlaskClient, registry: Registry, storage: Storage) -> None:
    registry.runs.start(Run(id="r1", model="user_target", started=utc_now()))
    evaluation.write(storage, "user_target", "r1", FOUND)
    answer = http.get("/runs/r1/evaluation")
    assert answer.status_code == 200
    assert Evaluation.from_json(answer.data) == FOUND
    assert answer.json["segments"]["shop"]["north"] == {
        "rows": 30, "metrics": {"accuracy": 0.95}, "intervals": {}, "missing": {},
    }  # fmt: skip


def test_a_run_without_one_is_not_found(http: FlaskClient, registry: Registry) -> None:
    registry.runs.start(Run(id="r1", model="user_target", started=utc_now()))
    answer = http.get("/runs/r1/evaluation")
    assert (answer.status_code, answer.json["detail"]) == (404, "run 'r1' of model 'user_target' has no evaluation")
    assert http.get("/runs/r2/evaluation").status_code == 404
