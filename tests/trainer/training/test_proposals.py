from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelmill.declare.search import Space
from modelmill.errors import InvalidRequest
from services.trainer.training.study import Proposals, Tried, proposals, require_parameters, with_params


def pipeline() -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("clf", LogisticRegression())])


def made(search: Any, trials: int | None = None, seed: int = 0) -> Proposals:
    return proposals(Space.of(search, trials), seed)


def listed(found: Proposals) -> list[dict[str, Any]]:
    return [found.params(index, []) for index in range(len(found))]


def test_lists_are_searched_in_every_combination() -> None:
    assert listed(made({"C": [1, 2], "penalty": ["l1", "l2"]})) == [
        {"C": 1, "penalty": "l1"},
        {"C": 1, "penalty": "l2"},
        {"C": 2, "penalty": "l1"},
        {"C": 2, "penalty": "l2"},
    ]
    assert listed(made([{"C": [1]}, {"gamma": [2, 3]}])) == [{"C": 1}, {"gamma": 2}, {"gamma": 3}]


def test_nothing_to_search_is_one_trial_as_declared() -> None:
    assert listed(made(None)) == [{}]


def test_trials_are_drawn_at_random_and_the_same_again() -> None:
    space = {"C": loguniform(0.01, 100), "penalty": ["l1", "l2"]}
    assert listed(made(space, 8)) == listed(made(space, 8))
    assert listed(made(space, 8)) != listed(made(space, 8, seed=1))
    assert len(made(space, 8)) == 8


def test_no_combination_of_lists_is_tried_twice() -> None:
    three = listed(made({"C": [1, 2], "penalty": ["l1", "l2"]}, 3))
    assert len({tuple(sorted(params.items())) for params in three}) == 3
    assert len(made({"C": [1, 2], "penalty": ["l1", "l2"]}, 100)) == 4


def test_optuna_learns_from_earlier_trials() -> None:
    found = made({"x": FloatDistribution(-10, 10)}, 40)
    earlier: list[Tried] = []
    for index in range(len(found)):
        params = found.params(index, earlier)
        score = None if index == 3 else -((params["x"] - 3) ** 2)
        earlier.append(Tried(params, score))
    best = max(tried.score for tried in earlier if tried.score is not None)
    late = [abs(tried.params["x"] - 3) for tried in earlier[-10:]]
    assert best > -0.1
    assert sum(late) / len(late) < 4, "the last trials are nearer to the best than chance"


def test_optuna_proposes_the_same_after_the_same_trials() -> None:
    space = {"x": FloatDistribution(0, 1), "kind": ["a", None, 3]}
    earlier = [Tried({"x": 0.5, "kind": None}, 1.0)]
    assert made(space, 5).params(1, earlier) == made(space, 5).params(1, earlier)
    assert made(space, 5).params(1, earlier) != made(space, 5).params(2, earlier)


def test_optuna_chooses_among_plain_values_alone() -> None:
    with pytest.raises(InvalidRequest, match="'clf' holds LogisticRegression"):
        made({"clf": [LogisticRegression()], "x": CategoricalDistribution((1, 2))}, 5)


def test_a_parameter_that_the_estimator_lacks_is_refused_with_the_nearest_names() -> None:
    error = "model 'm': search names 'clf__c', which Pipeline has no parameter of; did you mean 'clf__C'"
    with pytest.raises(InvalidRequest, match=error):
        require_parameters("model 'm'", pipeline(), Space.of({"clf__c": [1]}, None))


def test_a_step_may_be_searched_with_the_parameters_of_what_takes_its_place() -> None:
    search = [{"clf": [DecisionTreeClassifier()], "clf__max_depth": [1, 2]}, {"clf__C": [1]}]
    require_parameters("model 'm'", pipeline(), Space.of(search, None))


def test_each_trial_gets_estimators_of_its_own() -> None:
    tree, base = DecisionTreeClassifier(), pipeline()
    first, second = (with_params(base, {"clf": tree, "clf__max_depth": depth}) for depth in (1, 2))
    assert (first["clf"].max_depth, second["clf"].max_depth, tree.max_depth) == (1, 2, None)
    assert isinstance(base["clf"], LogisticRegression)
