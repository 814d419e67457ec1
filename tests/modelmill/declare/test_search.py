from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from scipy.stats import loguniform

from modelmill import Candidate
from modelmill.declare.search import NOT_GIVEN, Search, Space


def logistic() -> None: ...


def forest() -> None: ...


def test_an_estimator_alone_leaves_nothing_to_try() -> None:
    search = Search.of(logistic, None, None, None, ())
    assert not search.tries
    assert [candidate.estimator for candidate in search.candidates] == [logistic]


def test_candidates_are_named_by_their_functions_or_by_the_dict() -> None:
    listed = Search.of(NOT_GIVEN, None, None, None, [logistic, Candidate(forest, search={"max_depth": [3, 5]})])
    named = Search.of(NOT_GIVEN, None, None, None, {"small": logistic, "large": Candidate(logistic, search={"C": [9]})})
    assert [candidate.name for candidate in listed.candidates] == ["logistic", "forest"]
    assert [candidate.name for candidate in named.candidates] == ["small", "large"]
    assert listed.tries
    assert named.tries


@pytest.mark.parametrize(
    "search, trials, kind",
    [
        ({"C": [0.1, 1]}, None, "grid"),
        ({"C": np.array([0.1, 1])}, None, "grid"),
        ([{"C": [0.1, 1]}, {"penalty": ["l1"]}], None, "grid"),
        ({"C": [0.1, 1]}, 1, "random"),
        ({"C": loguniform(0.1, 10), "penalty": ["l1", "l2"]}, 20, "random"),
        ({"C": FloatDistribution(0.1, 10), "penalty": ["l1", "l2"]}, 20, "guided"),
    ],
)
def test_the_values_say_how_a_space_is_searched(search: Any, trials: int | None, kind: str) -> None:
    assert Space.of(search, trials).kind == kind


def test_a_search_is_described_the_same_in_every_process() -> None:
    candidates = [
        logistic,
        Candidate(forest, search={"max_depth": [3, 5], "max_features": loguniform(0.1, 1)}, trials=9),
    ]
    described = "logistic, forest(max_depth: 2 values, max_features: loguniform; 9 trials)"
    assert str(Search.of(NOT_GIVEN, None, None, None, candidates)) == described
    assert str(Search.of(logistic, forest, 5, None, ())) == "estimator(forest; 5 trials)"
    assert str(Search.of(logistic, None, None, None, ())) == ""


def test_a_space_may_be_a_function_that_only_the_trainer_calls() -> None:
    def space() -> dict[str, Any]:
        raise AssertionError("called at declaration")

    assert Search.of(logistic, space, 5, None, ()).tries
    assert Candidate(logistic, search=lambda: {"C": [1]}).space().parts == ({"C": [1]},)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"estimator": NOT_GIVEN}, "expected either estimator=... or candidates="),
        ({"candidates": [forest]}, "expected either estimator=... or candidates="),
        ({"search": {"C": 3}}, "search: 'C' is 3; expected a list of values, or a distribution"),
        ({"search": {"C": "l1"}}, "search: 'C' is 'l1'; expected a list of values"),
        ({"search": {"C": []}}, "search: 'C' is an empty list; expected at least one value"),
        ({"search": {3: [1]}}, "search: parameter 3; expected its name as text"),
        ({"search": {}}, "search={} names no parameter; leave it out"),
        ({"search": 7}, "search=7; expected a dict of parameter to values"),
        ({"search": {"C": loguniform(0.1, 10)}}, "add trials="),
        ({"search": {"C": FloatDistribution(0, 1), "l": loguniform(1, 2)}, "trials": 3}, "of SciPy and Optuna"),
        ({"search": [{"C": FloatDistribution(0, 1)}, {"C": [1]}], "trials": 3}, "expected one dict"),
        ({"search": {"C": [1]}, "trials": 0}, "trials=0; expected a whole number from 1 on"),
        ({"search": {"C": [1]}, "trials": True}, "trials=True; expected a whole number from 1 on"),
        ({"trials": 5}, "trials=5 without search=...; expected both or neither"),
        ({"cv": 5}, "cv=5 judges the trials of a search"),
        ({"search": {"C": [1]}, "cv": 1}, "cv=1; expected a number of folds from 2 on, a share"),
        ({"search": {"C": [1]}, "cv": "5"}, "cv='5'; expected a number of folds"),
        ({"estimator": NOT_GIVEN, "candidates": [forest, forest]}, "'forest' is there twice; name them"),
        ({"estimator": NOT_GIVEN, "candidates": [lambda: 1, forest]}, "candidate name '<lambda>'"),
        ({"estimator": NOT_GIVEN, "candidates": [forest, Candidate(logistic, search={"C": []})]}, "candidate 'logistic': "),
        ({"estimator": NOT_GIVEN, "candidates": [forest], "search": {"C": [1]}}, "write Candidate"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_where_it_is_declared(arguments: dict[str, Any], error: str) -> None:
    given = {"estimator": logistic, "search": None, "trials": None, "cv": None, "candidates": ()} | arguments
    with pytest.raises(ValueError, match=re.escape(error)):
        Search.of(**given)
