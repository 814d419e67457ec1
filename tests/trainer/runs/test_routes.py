"""The calls about runs."""

from __future__ import annotations

from flask.testing import FlaskClient

from modelmill.events import utc_now
from modelmill.registry import Registry
from modelmill.runs import Run
from tests.trainer.http import problem


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
