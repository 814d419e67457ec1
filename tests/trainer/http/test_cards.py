"""Cards over HTTP."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.times import utc_now
from tests.trainer.calls import Train, problem


def page(http: FlaskClient, url: str) -> str:
    answer = http.get(url)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/html; charset=utf-8"
    return answer.text


def test_a_model_has_the_card_of_its_champion(http: FlaskClient, trained: Train) -> None:
    trained()
    trained()
    assert "<span>version 2</span>" in page(http, "/models/user_target/card")
    first = page(http, "/models/user_target/versions/1/card")
    assert "<span>version 1</span>" in first
    assert '<li class="alias">' not in first
    assert page(http, "/runs/r1/card") == first


def test_a_card_names_the_aliases_of_now(http: FlaskClient, trained: Train) -> None:
    trained()
    trained()
    http.put("/models/user_target/aliases/challenger", json={"version": 1})
    assert '<li class="alias">challenger</li>' in page(http, "/models/user_target/versions/1/card")
    assert "<span>version 1</span>" in page(http, "/models/user_target/card?alias=challenger")


def test_a_pruned_version_says_so(http: FlaskClient, registry: Registry, trained: Train) -> None:
    trained()
    registry.redis.hset(keys.version("user_target", 1), "pruned", "2026-11-25T20:02:06.100946Z")
    assert "It was pruned at 2026-11-25 20:02:06 UTC" in http.get("/models/user_target/versions/1/card").text


def test_a_failed_run_has_a_card(http: FlaskClient, registry: Registry) -> None:
    run = Run(id="r1", model="user_target", started=utc_now())
    registry.runs.start(run)
    registry.runs.fail(run, "ValueError: bad", "Traceback")
    assert "ValueError: bad" in page(http, "/runs/r1/card")


@pytest.mark.parametrize(
    "url, detail",
    [
        ("/models/user_target/card", "model 'user_target' has no version that is its champion"),
        ("/models/nobody/card", "model 'nobody' is not known"),
        ("/models/user_target/versions/9/card", "model 'user_target' is not known"),
        ("/runs/r9/card", "'r9'"),
    ],
)
def test_what_is_not_there_is_not_found(http: FlaskClient, url: str, detail: str) -> None:
    assert detail in problem(http, "GET", url, 404)
