"""A recipe that fails leaves a failed run whose traceback names the user's line, with its text, wherever it fails.

The definitions are taken from Redis, where their text is kept; there is no file of that name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.declare import applied
from modelmill.declare.definitions_file import load_code
from modelmill.declare.user_code import UserCode
from modelmill.state import keys
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from services.trainer.job import train
from tests.conftest import USERS_MILL, RedisServer

pytestmark = pytest.mark.redis

MILL = Path("/nowhere/mill.py")
ESTIMATOR = """
from sklearn.dummy import DummyClassifier


class Own(DummyClassifier):
    def __init__(self, strength=1):
        super().__init__()
        self.strength = strength
        pass  # constructor

    def fit(self, X, y):
        pass  # fit
        return super().fit(X, y)

    def predict(self, X):
        pass  # predict
        return super().predict(X)


def classifier():
    pass  # function
    return Own()


def share_right(y_true, y_pred):
    pass  # metric
    return float((y_true == y_pred).mean())
"""


@pytest.fixture
def registry(environment: dict[str, str], real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


def apply(registry: Registry, place: str, code: str, arguments: str = "") -> int:
    """Put definitions in force that fail at `place`; returns the number of the line with the word NOW."""
    text = USERS_MILL.read_text()
    start, end = text.index("def classifier"), text.index("\n\nModel(")
    text = text[:start] + ESTIMATOR.replace(f"pass  # {place}", code) + text[end:]
    text = text.replace('metric="accuracy"', f"metric=share_right{arguments}")
    definitions = load_code(UserCode(MILL, text, {}))
    applied.keep(registry.redis, definitions)
    registry.redis.hset(keys.DEFINITIONS, "fingerprint", definitions.fingerprint)
    return next(number for number, line in enumerate(text.splitlines(), start=1) if "NOW" in line)


def failed(registry: Registry) -> Run:
    with pytest.raises(Exception, match=r"NOW|no_such_package"):
        train("user_target")
    [run] = registry.runs.newest("user_target")
    assert run.status == "failed"
    return run


def named(run: Run, line: int, text: str) -> bool:
    return f'File "{MILL}", line {line}, in ' in run.traceback and f"    {text}\n" in run.traceback


@pytest.mark.parametrize(
    "place, code, stage",
    [
        ("function", "import no_such_package  # NOW", "frame"),
        ("function", "raise KeyError('NOW')", "frame"),
        ("constructor", "raise ValueError('NOW')", "frame"),
        ("fit", "raise ValueError('NOW')", "fit"),
        ("predict", "raise ValueError('NOW')", "evaluate"),
        ("metric", "raise ValueError('NOW')", "evaluate"),
    ],
)
def test_the_traceback_names_the_users_line(registry: Registry, place: str, code: str, stage: str) -> None:
    line = apply(registry, place, code)
    run = failed(registry)
    assert named(run, line, code)
    assert run.stage == stage
    assert run.error


@pytest.mark.parametrize("place", ["fit", "predict", "metric"])
def test_so_does_that_of_a_search_whose_trials_all_fail(registry: Registry, place: str) -> None:
    code = "raise ValueError('NOW')"
    line = apply(registry, place, code, ', search={"strength": [1, 2]}')
    run = failed(registry)
    assert named(run, line, code)
    assert (run.stage, run.trials_failed) == ("fit", 2)
    trials = registry.runs.trials(run.id)
    assert [trial.error for trial in trials] == ["ValueError: NOW"] * 2
    assert all(named(trial, line, code) for trial in trials)
