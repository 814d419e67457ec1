"""What the commands of the registry ask for and print."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from modelmill import cli
from modelmill.cli import system

MOVE: dict[str, Any] = {
    "time": "2026-11-25T12:00:00.000000Z", "alias": "champion", "version": 1, "previous": 2, "kind": "promote",
    "by": "ada", "reason": "2 is down", "forced": ["improves"],
}  # fmt: skip
VERSION: dict[str, Any] = {
    "version": 1, "metrics": {"accuracy": 0.9, "recall": 0.8}, "gates": {"improves": "failed: equal", "parity": "passed: equal"},
    "tags": {"stage": "reviewed"}, "pruned": "",
    "created": "2026-11-25T11:00:00.000000Z", "run": "r1",
}  # fmt: skip


class Trainer:
    """A client that remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "history": [MOVE],
            "models": [{"name": "m", "latest": 3}, {"name": "untrained", "latest": None}],
            "model": {"metric": "recall", "versions": [dict(VERSION)], "aliases": {"champion": 1}, "history": [MOVE]},
            "prune": {"model": "m", "bytes": 1500, "removed": [{"version": 1, "run": "r1", "bytes": 1500}]},
            "tag": {"tags": {"stage": "reviewed"}},
            "note": {"notes": {"now": "ada: good"}},
        }

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, {k: v for k, v in kwargs.items() if k != "by"}))
            return answers.get(name, MOVE)

        return call


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(system, "client", lambda: trainer)
    return trainer


def modelmill(*words: str) -> Result:
    return CliRunner().invoke(cli.main, words)


def test_a_promotion_may_expect_a_version_and_be_forced(trainer: Trainer) -> None:
    done = modelmill("promote", "m", "1", "--expected", "2", "--force", "--reason", "2 is down")
    assert done.exit_code == 0
    options = {"alias": "champion", "reason": "2 is down", "expected": 2, "force": True}
    assert trainer.calls == [("promote", ("m", 1), options)]


def test_force_without_a_reason_is_wrong_usage(trainer: Trainer) -> None:
    done = modelmill("promote", "m", "1", "--force")
    assert (done.exit_code, trainer.calls) == (2, [])
    assert "--force needs --reason TEXT" in done.output


def test_rollback_goes_back_one_version_or_to_one(trainer: Trainer) -> None:
    modelmill("rollback", "m")
    modelmill("rollback", "m", "--to", "1", "--alias", "stable")
    assert [(args, kwargs["to"], kwargs["alias"]) for _, args, kwargs in trainer.calls] == [
        (("m",), None, "champion"),
        (("m",), 1, "stable"),
    ]


def test_an_alias_is_deleted(trainer: Trainer) -> None:
    assert modelmill("unalias", "m", "stable", "--reason", "old").exit_code == 0
    assert trainer.calls == [("delete_alias", ("m", "stable"), {"reason": "old", "expected": None})]


def test_the_history_says_what_was_forced(trainer: Trainer) -> None:
    printed = modelmill("history", "m", "--alias", "champion").output
    assert "forced over improves: 2 is down" in printed
    assert trainer.calls == [("history", ("m", "champion", 50), {})]
    assert orjson.loads(modelmill("history", "m", "--json").output) == [MOVE]


def test_a_model_is_shown_with_its_versions_and_newest_moves(trainer: Trainer) -> None:
    printed = modelmill("models", "m").output
    assert "stage reviewed" in printed
    assert "failed: improves  " in printed
    assert "forced over improves" in printed
    assert "pruned" not in printed, "no version was"


def test_all_trained_models_are_pruned_unless_one_is_named(trainer: Trainer) -> None:
    printed = modelmill("prune", "--dry-run").output
    assert "would free 1,500 bytes of 1 versions" in printed
    assert [call for call in trainer.calls if call[0] == "prune"] == [("prune", ("m",), {"dry_run": True})]
    assert "freed 1,500 bytes" in modelmill("prune", "m").output


def test_versions_and_runs_are_tagged_and_noted(trainer: Trainer) -> None:
    assert "stage reviewed" in modelmill("tag", "m@1", "stage=reviewed", "old=").output
    assert "ada: good" in modelmill("note", "r1", "good").output
    assert trainer.calls == [
        ("tag", ("m@1", {"stage": "reviewed", "old": None}), {}),
        ("note", ("r1", "good"), {}),
    ]
    assert modelmill("tag", "m@1", "reviewed").exit_code == 2
