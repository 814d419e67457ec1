"""Runs side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelmill.state.runs import Run
from services.trainer.runs.compare import compare

ONE = Run(
    id="a", model="m", started="2026-11-25T00:00:00.000000Z", rows_train=100, data_fingerprint="f1",
    features=["age", "hour"], fields=["users.age@11112222"], metrics={"auc": 0.5}, params={"C": "1", "tol": "0.1"},
    packages={"numpy": "2.4.6"}, git_commit="abc",
)  # fmt: skip
OTHER = Run(
    id="b", model="m", started="2026-11-25T01:00:00.000000Z", rows_train=150, data_fingerprint="f1",
    features=["age", "name_length"], fields=["users.age@33334444", "users.name_length"], metrics={"auc": 0.75},
    params={"C": "1", "penalty": "'l2'"}, packages={"numpy": "2.4.6"}, git_commit="abc",
)  # fmt: skip


def lines(section: str, *runs: Run) -> dict[str, dict[str, Any]]:
    """The lines of one section by name."""
    return {line["name"]: line for line in compare(runs)["sections"][section]}


def test_each_line_has_the_values_of_the_runs_in_turn_and_whether_they_differ() -> None:
    assert compare([ONE, OTHER])["runs"] == ["a", "b"]
    params = lines("params", ONE, OTHER)
    assert params["C"] == {"name": "C", "values": ["1", "1"], "differs": False, "change": None}
    assert (params["tol"]["values"], params["tol"]["differs"]) == (["0.1", None], True)
    assert (params["penalty"]["values"], params["penalty"]["differs"]) == ([None, "'l2'"], True)


def test_numbers_that_differ_say_how_much_more_than_the_first_run_s_they_are() -> None:
    assert lines("metrics", ONE, OTHER, ONE)["auc"]["change"] == [0.0, 0.25, 0.0]
    assert lines("data", ONE, OTHER)["rows_train"]["change"] == [0, 50]
    assert lines("metrics", OTHER, Run(id="c", model="m", started=""))["auc"]["change"] == [0.0, None]
    versions = lines("run", replace(ONE, version=3), replace(OTHER, version=4))["version"]
    assert (versions["differs"], versions["change"]) == (True, None), "a version is no amount"


def test_the_data_says_what_was_trained_on() -> None:
    data = lines("data", ONE, OTHER)
    assert not data["data_fingerprint"]["differs"]
    assert data["rows_train"]["differs"]
    assert "data_start" not in data, "no run has one"


def test_features_are_compared_by_version_and_by_whether_they_are_there() -> None:
    features = lines("features", ONE, OTHER)
    assert features["users.age"]["values"] == ["11112222", "33334444"]
    assert features["users.name_length"]["values"] == [None, "column"]
    assert features["hour"]["values"] == ["input", None]


def test_code_and_packages_are_compared() -> None:
    assert not lines("packages", ONE, OTHER)["numpy"]["differs"]
    assert not lines("code", ONE, OTHER)["git_commit"]["differs"]
