"""What the commands `reproduce` and `lineage` show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from modelmill import cli
from modelmill.cli import system

REPORT: dict[str, Any] = {
    "run": "r1",
    "model": "user_target",
    "equal": True,
    "checks": [{"name": "rows of users", "recorded": "768", "found": "768", "equal": True}],
    "reasons": [],
}
LINEAGE: dict[str, Any] = {
    "asked": "abc",
    "kind": "prediction",
    "prediction": {"time": "2026-11-23T23:50:00.000000Z", "keys": {"user": ["u"]}, "predictions": [1]},
    "version": {
        "model": "user_target", "version": 7, "aliases": ["champion"], "created": "2026-11-23T23:48:10.000000Z",
        "package": "packages/user_target/r1",
        "pruned": "",
        "moves": [{"time": "2026-11-23T23:48:10.000000Z", "kind": "promote", "alias": "champion", "previous": 6,
                   "version": 7, "by": "trainer", "reason": "promoted, being better"}],
    },
    "run": {"id": "r1", "status": "succeeded", "started": "2026-11-23T23:48:00.000000Z", "parent": "",
            "decision": "promoted, being better",
            "gates": {"at_least(accuracy, 0.8)": "passed: 0.9"}, "metrics": {"accuracy": 0.9}, "error": ""},
    "trigger": {"kind": "every", "by": "every 60 s, slot 2026-11-23T23:48:00Z"},
    "frame": {"data_fingerprint": "f" * 64, "rows_train": 576, "rows_test": 192, "rows_dropped": 0, "split": "at random",
              "data_start": "2026-11-23T23:40:00.000000Z", "data_end": "2026-11-23T23:47:00.000000Z"},
    "sources": {"users": {"known_until": "2026-11-23T23:47:08.123456Z", "rows": 768}},
    "features": [{"name": "feature_3", "dtype": "float", "kind": "derived", "source": "users", "version": "4f2e1a9c",
                  "code": "def feature_3(row):\n    return row[\"feature_1\"] ** 2"}],
    "code": {"definitions": "d" * 64, "file": "runs/user_target/r1/mill.py", "modules": {}, "git_commit": "c0ffee",
             "packages": {"numpy": "2.4.6"}, "machine": "a desk"},
}  # fmt: skip
SOURCE: dict[str, Any] = {
    "asked": "users",
    "columns": {"feature_1": "float"},
    "models": ["user_target"],
    "features": [{"name": "feature_1", "dtype": "float", "kind": "column", "source": "users", "version": "", "code": "",
                  "models": ["user_target"]}],
    "runs": [{"id": f"r{n}", "model": "user_target", "status": "succeeded", "rows": 768, "known_until": "2026"}
             for n in range(12)],
    "versions": [{"model": "user_target", "version": 7, "aliases": ["champion"]}],
}  # fmt: skip


class Traced:
    """A client of a system with one repetition."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def reproduce(self, run: str, *, by: str, wait: bool) -> dict[str, Any]:
        assert not wait
        return {"job": "j"}

    def job_events(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "stage", {"stage": "fit", "progress": 0.2, "rows": 576}

    def wait(self, job: str) -> dict[str, Any]:
        return {"job": job, "status": "finished"}

    def reproduction(self, run: str, job: dict[str, Any]) -> dict[str, Any]:
        return self.report

    def lineage(self, of: str) -> dict[str, Any]:
        return LINEAGE

    def source_lineage(self, source: str) -> dict[str, Any]:
        return SOURCE


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str, report: dict[str, Any] = REPORT) -> Result:
    monkeypatch.setattr(system, "client", lambda: Traced(report))
    return CliRunner().invoke(cli.main, list(arguments))


def test_an_equal_repetition_is_a_table_and_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, "reproduce", "r1")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == ["name recorded found outcome", "rows of users 768 768 equal", "run r1 of user_target: equal"]


def test_one_that_differs_says_why_and_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    check = {"name": "rows of users", "recorded": "768", "found": "766", "equal": False}
    report = REPORT | {"equal": False, "checks": [check], "reasons": ["package numpy was 1, is 2"]}
    done = invoke(monkeypatch, "reproduce", "r1", report=report)
    assert done.exit_code == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[1:] == [
        "rows of users 768 766 differs", "- package numpy was 1, is 2", "run r1 of user_target: not equal",
    ]  # fmt: skip


def test_lineage_is_a_tree_from_the_answer_to_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, "lineage", "abc")
    assert done.exit_code == 0
    lines = [line.strip("│├─└ ") for line in done.stdout.splitlines()]
    for expected in (
        "prediction abc",
        "version user_target@7 (champion)",
        "2026-11-23 23:48:10 promote champion: 6 -> 7 by trainer: promoted, being better",
        "run r1 succeeded",
        "gate at_least(accuracy, 0.8) passed: 0.9",
        "trigger every: every 60 s, slot 2026-11-23T23:48:00Z",
        "frame ffffffffffff",
        "source users: 768 rows until 2026-11-23T23:47:08.123456Z",
        "feature_3@4f2e1a9c float derived of users",
        'return row["feature_1"] ** 2',
        "code dddddddddddd",
    ):
        assert expected in lines


def test_a_source_lists_what_was_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(monkeypatch, "lineage", "source", "users")
    lines = [line.strip("│├─└ ") for line in done.stdout.splitlines()]
    assert lines[0] == "source users"
    assert "feature_1 float column for user_target" in lines
    assert "runs 12" in lines
    assert "and 2 more: --json shows them" in lines
    assert "user_target@7 (champion)" in lines


def test_scripts_get_json_and_a_source_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert '"asked": "abc"' in invoke(monkeypatch, "lineage", "abc", "--json").stdout
    assert invoke(monkeypatch, "lineage", "source").exit_code == 2
    assert invoke(monkeypatch, "lineage", "abc", "users").exit_code == 2
