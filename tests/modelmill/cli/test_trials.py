"""What the command `trials` shows."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import system
from modelmill.cli.training import differing

COMMON = {"seconds": {"fit": 0.5}, "metric": "accuracy", "error": ""}


class Trials:
    """A client of a system in which one run has a search."""

    def trials(self, run: str) -> dict[str, object]:
        runs = [
            {"id": "t1", "trial": 1, "status": "succeeded", "params": {"C": "0.1", "penalty": "'l2'"}, **COMMON},
            {"id": "t2", "trial": 2, "status": "failed", "params": {"C": "-1", "penalty": "'l2'"}, **COMMON},
            {"id": "t3", "trial": 3, "status": "succeeded", "params": {"C": "10", "penalty": "'l2'"}, **COMMON},
        ]
        scores = [{"accuracy": 0.8, "accuracy_std": 0.1}, {}, {"accuracy": 0.9, "accuracy_std": 0.1}]
        listed = [run | {"metrics": score} for run, score in zip(runs, scores, strict=True)] if run == "r1" else []
        return {"run": run, "trials": len(listed), "trials_ended": len(listed), "trials_failed": 1, "runs": listed}


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "client", Trials)


def test_the_best_comes_first_with_the_parameters_in_which_trials_differ() -> None:
    done = CliRunner().invoke(cli.main, ["trials", "r1"])
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["3", "1", "2"]
    assert "C 10" in lines[1]
    assert "penalty" not in done.stdout
    assert lines[4] == "3 of 3 trials have ended, 1 failed"


def test_candidates_differ_in_their_own_parameters() -> None:
    trials = [
        {"params": {"candidate": "forest", "max_depth": "3"}},
        {"params": {"candidate": "forest", "max_depth": "6"}},
        {"params": {"candidate": "logistic", "C": "1"}},
        {"params": {}},
    ]
    assert [differing(trial, trials) for trial in trials] == [
        {"candidate": "forest", "max_depth": "3"},
        {"candidate": "forest", "max_depth": "6"},
        {"candidate": "logistic"},
        {},
    ]


def test_a_run_without_a_search_says_so() -> None:
    done = CliRunner().invoke(cli.main, ["trials", "r2"])
    assert done.stdout == "No trials: this run searched nothing.\n"
