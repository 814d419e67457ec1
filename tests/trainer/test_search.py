"""Whole trainings with a search, in this process, against a real Redis and a stand-in for the feature service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelmill.errors import InvalidRequest
from modelmill.state import bus, keys
from modelmill.state.events import ModelPromoted, ModelTrained, RunStarted
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.trainer.job import train
from tests.conftest import USERS_MILL, RedisServer
from tests.trainer.conftest import FeatureStub

pytestmark = pytest.mark.redis

TREE = """
def tree():
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(random_state=0)

"""


@pytest.fixture
def registry(environment: dict[str, str], real_redis: RedisServer) -> Registry:
    return Registry(real_redis.client())


class Mill:
    """The users example, with other arguments of its model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def declare(self, arguments: str, before: str = TREE) -> None:
        text = USERS_MILL.read_text().replace("every, feature", "by_group, Candidate, every, feature")
        text = text.replace("    split=at_random(0.25),\n", "")
        text = text.replace("\nModel(", f"{before}\nModel(").replace("estimator=classifier", arguments)
        self.path.write_text(text)


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mill:
    path = tmp_path / "mill.py"
    monkeypatch.setenv("MODELMILL_DEFINITIONS", str(path))
    return Mill(path)


def trained(registry: Registry) -> tuple[Run, list[Run]]:
    """The run of a training, and its trials."""
    run = registry.runs.get(train("user_target")["run"])
    return run, registry.runs.trials(run.id)


def test_every_combination_is_a_run_of_its_own_and_the_best_is_trained_on_all_rows(
    registry: Registry, mill: Mill, tmp_path: Path
) -> None:
    mill.declare('estimator=classifier, search={"logisticregression__C": [1e-6, 1.0]}, cv=4')
    run, trials = trained(registry)
    assert [(trial.parent, trial.trial, trial.status, trial.trigger) for trial in trials] == [
        (run.id, 1, "succeeded", "search"),
        (run.id, 2, "succeeded", "search"),
    ]
    assert [trial.params["logisticregression__C"] for trial in trials] == ["1e-06", "1.0"]
    for trial in trials:
        folds = [trial.metrics[f"accuracy_fold_{number}"] for number in (1, 2, 3, 4)]
        assert trial.metrics["accuracy"] == pytest.approx(sum(folds) / 4)
        assert trial.metrics["accuracy_std"] >= 0
    best = max(trials, key=lambda trial: trial.metrics["accuracy"])
    assert run.params["logisticregression__C"] == best.params["logisticregression__C"]
    assert run.params["trial"] == str(best.trial)
    assert run.params["cv"] == "StratifiedKFold(n_splits=4, random_state=0, shuffle=True)"
    assert (run.trials, run.trials_ended, run.trials_failed, run.rows_train) == (2, 2, 0, 300)
    table = json.loads(Storage(f"file://{tmp_path}/storage").read(f"runs/user_target/{run.id}/trials.json"))
    assert [row["run"] for row in table["trials"]] == [trial.id for trial in trials]
    assert [row["score"] for row in table["trials"]] == [trial.metrics["accuracy"] for trial in trials]


def test_trials_are_no_trainings_to_those_who_follow_the_events(registry: Registry, mill: Mill) -> None:
    mill.declare('estimator=classifier, search={"logisticregression__C": [-1, 1.0]}')
    run, _ = trained(registry)
    events = [type(event) for _, event in bus.newest(registry.redis, keys.EVENTS_MODELS, 10)]
    assert events == [RunStarted, ModelTrained, ModelPromoted]
    assert [known.id for known in registry.runs.newest("user_target")] == [run.id]
    assert registry.runs.running() == []


def test_candidates_are_compared_on_the_same_folds_each_with_its_own_search(registry: Registry, mill: Mill) -> None:
    mill.declare('candidates=[classifier, Candidate(tree, search={"max_depth": [1, 2]})], cv=3')
    run, trials = trained(registry)
    assert [trial.params["candidate"] for trial in trials] == ["classifier", "tree", "tree"]
    assert [trial.params.get("max_depth") for trial in trials] == [None, "1", "2"]
    assert run.params["candidate"] == "classifier"
    assert run.estimator.startswith("Pipeline(")
    assert registry.aliases("user_target") == {"champion": 1}


def test_the_winner_may_be_another_kind_of_estimator(registry: Registry, mill: Mill) -> None:
    dummy = "\ndef dummy():\n    from sklearn.dummy import DummyClassifier\n    return DummyClassifier()\n"
    mill.declare('candidates={"nothing": dummy, "tree": tree}, cv=0.3', before=TREE + dummy)
    run, _ = trained(registry)
    assert run.params["candidate"] == "tree"
    assert run.estimator == "DecisionTreeClassifier(random_state=0)"


def test_a_source_with_event_times_is_judged_on_newer_rows(registry: Registry, mill: Mill) -> None:
    mill.declare('estimator=classifier, search={"logisticregression__C": [0.1, 1.0]}')
    text = mill.path.read_text()
    mill.path.write_text(text.replace("entity=user, columns", 'entity=user, event_time="at", columns'))
    run, _ = trained(registry)
    assert run.params["cv"].startswith("TimeSeriesSplit(")


def test_a_model_split_by_groups_is_judged_on_groups_that_it_has_not_seen(registry: Registry, mill: Mill) -> None:
    mill.declare(
        'estimator=classifier, search={"logisticregression__C": [0.1, 1.0]}, split=by_group("feature_2", 0.25)'
    )
    run, _ = trained(registry)
    assert run.params["cv"].startswith("StratifiedGroupKFold(")


def test_optuna_searches_distributions(registry: Registry, mill: Mill) -> None:
    space = (
        "\ndef space():\n    from optuna.distributions import FloatDistribution\n"
        '    return {"logisticregression__C": FloatDistribution(1e-4, 10, log=True)}\n'
    )
    mill.declare("estimator=classifier, search=space, trials=4", before=space)
    runs = [trained(registry) for _ in range(2)]
    first, second = ([trial.params["logisticregression__C"] for trial in trials] for _, trials in runs)
    assert first == second, "one worker tries the same again"
    assert len(set(first)) == 4


def test_a_failing_trial_leaves_a_failed_run_and_the_search_goes_on(registry: Registry, mill: Mill) -> None:
    mill.declare('estimator=classifier, search={"logisticregression__C": [-1, 1.0]}')
    run, (failed, succeeded) = trained(registry)
    assert (run.status, run.trials_ended, run.trials_failed) == ("succeeded", 2, 1)
    assert run.params["logisticregression__C"] == "1.0"
    assert (failed.status, succeeded.status) == ("failed", "succeeded")
    assert "The 'C' parameter of LogisticRegression must be a float" in failed.error
    assert failed.traceback.startswith("Traceback")


def test_a_search_of_which_every_trial_fails_fails_with_the_first_traceback(registry: Registry, mill: Mill) -> None:
    mill.declare('estimator=classifier, search={"logisticregression__C": [-1, -2]}')
    with pytest.raises(InvalidRequest, match="all 2 trials failed; the first: InvalidParameterError: The 'C'"):
        train("user_target")
    [run] = registry.runs.newest("user_target")
    assert (run.status, run.stage, run.trials_failed) == ("failed", "fit", 2)
    assert "sklearn" in run.traceback
    assert registry.versions("user_target") == []


@pytest.mark.parametrize(
    "arguments, error",
    [
        (
            'estimator=classifier, search={"logisticregresion__C": [1]}',
            "search names 'logisticregresion__C', which Pipeline has no parameter of; did you mean 'logisticregression__C'",
        ),
        (
            'candidates=[classifier, Candidate(tree, search={"max_dept": [1]})]',
            "candidate 'tree': search names 'max_dept', which DecisionTreeClassifier has no parameter of; did you mean 'max_depth'",
        ),
        ("estimator=classifier, search=lambda: {'logisticregression__C': 3}", "search: 'logisticregression__C' is 3"),
        ("candidates={'a': classifier, 'b': lambda: 7}", "expected a scikit-learn estimator"),
        (
            "estimator=tree, search={'max_depth': list(range(1, 201)), 'min_samples_leaf': list(range(1, 101))}",
            "search has 20000 trials; expected at most 10000: add trials=",
        ),
    ],
)
def test_a_search_with_a_mistake_fails_before_data_are_fetched(
    registry: Registry, mill: Mill, feature_stub: FeatureStub, arguments: str, error: str
) -> None:
    mill.declare(arguments)
    with pytest.raises(InvalidRequest) as raised:
        train("user_target")
    assert error in raised.value.detail
    assert feature_stub.asked == []


def test_a_classifier_and_a_regressor_cannot_be_compared(registry: Registry, mill: Mill) -> None:
    line = "\ndef line():\n    from sklearn.linear_model import LinearRegression\n    return LinearRegression()\n"
    mill.declare("candidates=[classifier, line]", before=line)
    with pytest.raises(InvalidRequest, match="classifier is for classification, line is for regression"):
        train("user_target")


def test_nothing_is_left_in_the_storage_but_the_table(registry: Registry, mill: Mill, tmp_path: Path) -> None:
    mill.declare("candidates=[classifier, tree]")
    run, _ = trained(registry)
    files = Storage(f"file://{tmp_path}/storage").names(f"runs/user_target/{run.id}", "")
    assert not [name for name in files if name.endswith((".parquet", ".npz"))]
