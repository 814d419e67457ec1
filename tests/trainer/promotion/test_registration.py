"""Versions are compared on the same rows, by the packages that serve, and decided about again when that changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from modelmill import at_least, improves, size_below
from modelmill.declare.declarations import Entity, Model
from modelmill.errors import Conflict, RunEnded
from modelmill.packages import package
from modelmill.packages.package import Input
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import ModelPromoted, ModelTrained
from modelmill.state.registry import Registry, Version
from modelmill.state.runs import Run
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.trainer.evaluation import evaluation as evaluations
from services.trainer.evaluation.answers import Answers
from services.trainer.evaluation.evaluation import Evaluation, HeldOut
from services.trainer.evaluation.metrics import scores
from services.trainer.packaging.packing import Inputs, manifest, pack
from services.trainer.promotion.judgement import Decision
from services.trainer.promotion.registration import TRIES, Candidate, register

RANDOM = np.random.default_rng(1)
ROWS = pd.DataFrame(RANDOM.normal(size=(300, 2)), columns=["a", "b"])
LABEL = (ROWS["a"] + 0.3 * ROWS["b"] + 0.3 * RANDOM.normal(size=300) > 0).to_numpy().astype(int)
GOOD = LogisticRegression().fit(ROWS, LABEL)
POOR = LogisticRegression().fit(ROWS[["b", "a"]].set_axis(["a", "b"], axis=1), LABEL)
Train = Callable[..., tuple[Version, Decision]]


def recipe(**changes: Any) -> Model:
    features = changes.pop("features", ["a", "b"])
    return Model("m", entities=[Entity("user", key="id")], features=features, label="y", estimator=GOOD, **changes)


@pytest.fixture
def registry(fake_redis: Redis) -> Registry:
    return Registry(fake_redis)


@pytest.fixture
def train(registry: Registry, storage: Storage) -> Train:
    """Package a fitted estimator as the next run of model m, and register it."""

    def train(estimator: Any, recipe: Model, rows: pd.DataFrame = ROWS) -> tuple[Version, Decision]:
        run = Run(id=f"run-{len(registry.runs.newest('m', limit=100)) + 1}", model="m", started=utc_now())
        registry.runs.start(run)
        answers = Answers.of(estimator, rows)
        run = replace(run, metrics=scores(recipe.metrics, answers, LABEL))
        inputs = Inputs([Input(name, "float", False) for name in recipe.features], [])
        packed = pack(estimator, inputs.fed, rows, answers)
        made = manifest(recipe, run, inputs, estimator, packed, fitted_on=rows, held_out=rows)
        run = replace(run, package=package.write(storage, made, packed.files))
        evaluation = Evaluation(len(rows), "by hand", run.metrics)
        held_out = HeldOut(recipe.metrics, rows, LABEL, recipe.labels)
        return register(registry, storage, Candidate(recipe, run, made, held_out, evaluation))

    return train


def test_the_first_version_becomes_champion(train: Train, registry: Registry) -> None:
    version, decision = train(GOOD, recipe())
    assert (version.version, decision.promote, registry.aliases("m")) == (1, True, {"champion": 1})
    assert registry.runs.get("run-1").decision == decision.reason
    assert registry.runs.get("run-1").seconds["register"] > 0


def test_the_champion_is_scored_again_on_the_new_rows(train: Train, registry: Registry) -> None:
    train(POOR, recipe())
    _, decision = train(GOOD, recipe())
    again = POOR.score(ROWS, LABEL)
    assert decision.promote
    assert f"champion version 1 {again:.6g} on the same rows" in decision.reason
    assert registry.aliases("m") == {"champion": 2}


def test_a_worse_version_is_registered_and_not_promoted(train: Train, registry: Registry) -> None:
    train(GOOD, recipe())
    version, decision = train(POOR, recipe())
    assert (version.version, decision.promote, registry.aliases("m")) == (2, False, {"champion": 1})


def test_the_same_model_again_is_not_better_by_rounding(train: Train) -> None:
    train(GOOD, recipe(metric="neg_log_loss"))
    assert not train(GOOD, recipe(metric="neg_log_loss"))[1].promote


def test_a_champion_with_inputs_that_are_no_longer_declared_is_not_compared(train: Train) -> None:
    train(GOOD, recipe())
    rows = ROWS[["a"]]
    _, decision = train(LogisticRegression().fit(rows, LABEL), recipe(features=["a"]), rows)
    assert not decision.promote
    assert "it takes b, which the model no longer declares" in decision.reason


def test_a_champion_with_a_broken_package_is_replaced(train: Train, registry: Registry, storage: Storage) -> None:
    version, _ = train(GOOD, recipe())
    storage.write(f"{version.package}/{package.GRAPH}", b"not what it was")
    _, decision = train(POOR, recipe())
    assert decision.promote
    assert "differs from its SHA-256" in decision.reason


def test_a_storage_that_is_away_is_no_broken_champion(
    train: Train, registry: Registry, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train(GOOD, recipe())
    read = storage.read

    def away(name: str) -> bytes:
        if name.startswith(first.package):
            raise TimeoutError("the storage does not answer")
        return read(name)

    monkeypatch.setattr(storage, "read", away)
    with pytest.raises(TimeoutError):
        train(POOR, recipe())
    assert registry.aliases("m") == {"champion": 1}


def test_a_metric_that_graphs_cannot_give_is_taken_from_the_estimator(train: Train) -> None:
    _, decision = train(RidgeClassifier().fit(ROWS, LABEL), recipe(metric="roc_auc"))
    assert "there is no champion yet to compare with): roc_auc 0.9" in decision.reason


def test_the_decision_is_kept_with_run_version_event_and_evaluation(
    train: Train, registry: Registry, storage: Storage
) -> None:
    train(POOR, recipe())
    version, decision = train(GOOD, recipe(gates=[improves("accuracy"), at_least("accuracy", 0.7)]))
    assert list(decision.gates) == ["improves_accuracy", "at_least_accuracy"]
    assert registry.runs.get("run-2").gates == decision.gates == version.gates
    kept = evaluations.read(storage, "m", "run-2").decision
    assert (kept["reason"], kept["alias"], kept["compared"]["champion"]) == (decision.reason, "champion", 1)
    assert [one["figures"].keys() >= {"estimate", "lo", "hi"} for one in kept["verdicts"]] == [True, False]
    told = [event for _, event in bus.newest(registry.redis, keys.EVENTS_MODELS, 10)]
    assert [event.gates for event in told if isinstance(event, ModelTrained | ModelPromoted)][-2:] == [
        version.gates
    ] * 2


def test_a_canary_becomes_challenger_beside_the_champion(train: Train, registry: Registry) -> None:
    train(POOR, recipe(promote="canary"))
    assert registry.aliases("m") == {"champion": 1}, "there was none to try it beside"
    _, decision = train(GOOD, recipe(promote="canary"))
    assert (decision.promote, decision.alias) == (True, "challenger")
    assert registry.aliases("m") == {"champion": 1, "challenger": 2}
    train(POOR, recipe(promote="canary"))
    assert registry.aliases("m") == {"champion": 1, "challenger": 2}


def test_a_failed_gate_keeps_a_better_version_back(train: Train, registry: Registry) -> None:
    train(POOR, recipe())
    _, decision = train(GOOD, recipe(gates=[improves("accuracy"), size_below(mb=1e-6)]))
    assert not decision.promote
    assert decision.reason.startswith("not promoted, size_below failed: ")
    assert registry.version("m", 2).failed.keys() == {"size_below"}


def test_the_champion_is_asked_once_however_often_the_decision_is_made(
    train: Train, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(POOR, recipe())
    asked, tries = [], []
    real, register = Answers.of, registry.register

    def counted(*args: Any) -> Answers:
        asked.append(1)
        return real(*args)

    def conflict_once(*args: Any, **kwargs: Any) -> Version:
        tries.append(1)
        if len(tries) == 1:
            raise Conflict("decide again")
        return register(*args, **kwargs)

    monkeypatch.setattr(registry, "register", conflict_once)
    monkeypatch.setattr("services.trainer.promotion.registration.Answers", SimpleNamespace(of=counted))
    train(GOOD, recipe())
    assert len(tries) == 2
    assert len(asked) == 2, "the candidate; the champion"


def test_the_decision_is_made_again_when_another_version_became_champion(
    train: Train, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(POOR, recipe())
    train(GOOD, recipe(promote="manual"))
    real, calls = registry.register, []

    def overtaken(*args: Any, **kwargs: Any) -> Version:
        if not calls:
            registry.promote("m", 2, by="someone")
        calls.append(kwargs["champion"])
        return real(*args, **kwargs)

    monkeypatch.setattr(registry, "register", overtaken)
    _, decision = train(GOOD, recipe())
    assert calls == [1, 2]
    assert not decision.promote, "better than version 1, but not than version 2, which is the same"


def test_a_champion_that_keeps_changing_is_given_up_on(
    train: Train, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def overtaken(*_: Any, **__: Any) -> Version:
        tries.append(1)
        raise Conflict("champion of 'm' is version 9 by now, not None; decide again")

    monkeypatch.setattr(registry, "register", overtaken)
    with pytest.raises(Conflict):
        train(GOOD, recipe())
    assert len(tries) == TRIES


def test_a_run_that_was_closed_meanwhile_registers_nothing(
    train: Train, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = registry.register

    def closed(run: Run, *args: Any, **kwargs: Any) -> Version:
        registry.runs.fail(run, "worker lost", "")
        return real(run, *args, **kwargs)

    monkeypatch.setattr(registry, "register", closed)
    with pytest.raises(RunEnded, match="worker lost"):
        train(GOOD, recipe())
    assert registry.versions("m") == []
