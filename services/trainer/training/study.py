"""What a search tries: the estimators of a model, and the parameters of each trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sklearn.base import clone

from modelmill.declare.declarations import Model
from modelmill.declare.search import Candidate
from modelmill.errors import InvalidRequest
from services.trainer.evaluation.answers import task_of
from services.trainer.training.proposals import (
    Params,
    Proposals,
    Tried,
    proposals,
    require_parameters,
    with_params,
)
from services.trainer.training.rows import Rows
from services.trainer.training.split import Folds

MOST_TRIALS = 10_000
"""Trials of one search; a grid of more is almost always a mistake."""


@dataclass(frozen=True)
class Arm:
    """One of the estimators that are compared, with the parameters that are tried of it."""

    name: str
    estimator: Any
    proposals: Proposals


@dataclass(frozen=True)
class Study:
    """The trials of a model, numbered from 1: those of the first estimator, then those of the second, and so on."""

    arms: tuple[Arm, ...]
    tries: bool
    """Whether there is anything to try; otherwise the one estimator is fitted as it is."""
    metric: str
    """The name of the score by which trials are compared; greater is better."""
    score: Callable[[Any, Rows], float]
    """That of a fitted estimator on rows."""

    @property
    def estimator(self) -> Any:
        """The first of the estimators, with the parameters that it is declared with."""
        return self.arms[0].estimator

    @cached_property
    def numbers(self) -> dict[int, tuple[Arm, int]]:
        """Trial number to its estimator and its place among the trials of that."""
        every = [(arm, index) for arm in self.arms for index in range(len(arm.proposals))]
        return dict(enumerate(every, start=1))

    def same_arm(self, number: int) -> list[int]:
        """The numbers of the trials of the same estimator."""
        arm, _ = self.numbers[number]
        return [other for other, (its, _) in self.numbers.items() if its is arm]

    def propose(self, number: int, earlier: Sequence[Tried]) -> Params:
        """The parameters of a trial, when the `earlier` ones of the same estimator have ended."""
        arm, index = self.numbers[number]
        return arm.proposals.params(index, earlier)

    def make(self, number: int, params: Params) -> Any:
        """The estimator of a trial, not fitted."""
        return with_params(self.numbers[number][0].estimator, params)

    def judge(self, estimator: Any, rows: Rows, folds: Folds) -> list[float]:
        """The score of `estimator` on each fold, fitted afresh for each.

        Raises:
            InvalidRequest: for a score that is no finite number; whatever fitting or scoring raises is passed on.
        """
        scores: list[float] = []
        for number, (fit, score) in enumerate(folds.pairs, start=1):
            fitted = rows.take(fit).fit(clone(estimator))
            scores.append(self.score(fitted, rows.take(score)))
            if not math.isfinite(scores[-1]):
                raise InvalidRequest(f"metric {self.metric!r} is {scores[-1]} on fold {number} of {len(folds.pairs)}")
        return scores


def make_study(
    recipe: Model, make: Callable[[Model, Any], Any], score: Callable[[Any, Rows], float], seed: int
) -> Study:
    """The study of a model.

    Args:
        make: makes an estimator of what the model declares as one.
        score: the model's metric of a fitted estimator on rows.

    Raises:
        InvalidRequest: for estimators of different tasks, and for a search that cannot be carried out: the parameter,
            its value, what was expected.
    """
    arms = [_arm(recipe, candidate, make, seed) for candidate in recipe.search.candidates]
    tasks = {arm.name: task_of(arm.estimator) for arm in arms}
    if len(set(tasks.values())) > 1:
        listed = ", ".join(f"{name} is for {task}" for name, task in tasks.items())
        raise InvalidRequest(f"model {recipe.name!r}: candidates cannot be compared: {listed}")
    if (count := sum(len(arm.proposals) for arm in arms)) > MOST_TRIALS:
        raise InvalidRequest(
            f"model {recipe.name!r}: search has {count} trials; expected at most {MOST_TRIALS}: add trials="
        )
    return Study(tuple(arms), recipe.search.tries, recipe.metric, score)


def _arm(recipe: Model, candidate: Candidate, make: Callable[[Model, Any], Any], seed: int) -> Arm:
    what = f"model {recipe.name!r}"
    if len(recipe.search.candidates) > 1:
        what += f", candidate {candidate.name!r}"
    estimator = make(recipe, candidate.estimator)
    try:
        space = candidate.space()
    except ValueError as error:
        raise InvalidRequest(f"{what}: {error}") from None
    require_parameters(what, estimator, space)
    return Arm(candidate.name, estimator, proposals(space, seed))
