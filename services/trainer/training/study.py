"""What a search tries: the estimators of a model, and the parameters of each trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, ParameterSampler

from modelmill.declare.declarations import Model
from modelmill.declare.search import Candidate, Space
from modelmill.errors import InvalidRequest, did_you_mean
from services.trainer.evaluation.answers import task_of
from services.trainer.training.rows import Rows
from services.trainer.training.split import Folds

MAX_TRIALS = 10_000
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
    if (count := sum(len(arm.proposals) for arm in arms)) > MAX_TRIALS:
        raise InvalidRequest(
            f"model {recipe.name!r}: search has {count} trials; expected at most {MAX_TRIALS}: add trials="
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


# --- which parameters the trials of a search have: listed beforehand, or proposed by Optuna one after the other

Params = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """An earlier trial of the same search."""

    params: Params
    score: float | None
    """None where it failed."""


@dataclass(frozen=True)
class Listed:
    """Parameters that are known beforehand, the same in every process."""

    points: list[Params]
    remembered: ClassVar[bool] = False
    """Whether parameters have to be kept, because nobody can make them again."""

    def __len__(self) -> int:
        return len(self.points)

    def params(self, index: int, earlier: Sequence[Tried]) -> Params:
        """The parameters of a trial, numbered from 0, whatever the `earlier` ones have shown."""
        return self.points[index]


@dataclass(frozen=True)
class Guided:
    """Parameters that Optuna's TPE sampler proposes from the scores so far; greater scores are better."""

    space: Mapping[str, Any]
    """Parameter to its distribution."""
    trials: int
    seed: int
    remembered: ClassVar[bool] = True

    def __len__(self) -> int:
        return self.trials

    def params(self, index: int, earlier: Sequence[Tried]) -> Params:
        """The parameters of a trial, numbered from 0, when the `earlier` ones have ended."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Made anew for each trial, so that any worker can go on with it.
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=(self.seed * 1_000_003 + index) % 2**32)
        )
        for tried in earlier:
            state = optuna.trial.TrialState.FAIL if tried.score is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=tried.score, params=tried.params, distributions=dict(self.space)
                )
            )
        return dict(study.ask(fixed_distributions=dict(self.space)).params)


Proposals = Listed | Guided
"""The parameters of a search's trials."""


def proposals(space: Space, seed: int) -> Proposals:
    """The trials of a search space.

    Raises:
        InvalidRequest: where Optuna is not installed, or a list holds what it cannot choose from.
    """
    if space.kind == "grid":
        return Listed(list(ParameterGrid(list(space.parts))))
    if space.kind == "random":
        grid_size = _grid_size(space)
        if grid_size is not None and (space.trials or 0) >= grid_size:
            return Listed(list(ParameterGrid(list(space.parts))))
        return Listed(list(ParameterSampler(list(space.parts), space.trials, random_state=seed)))
    return Guided(_distributions(space.parts[0]), space.trials or 1, seed)


def require_parameters(what: str, estimator: Any, space: Space) -> None:
    """Refuse a space with a parameter that `estimator` does not have.

    Raises:
        InvalidRequest: with the nearest names.
    """
    for part in space.parts:
        varied = clone(estimator)
        steps = {name: v[0] for name, v in part.items() if isinstance(v, Sequence) and hasattr(v[0], "get_params")}
        known = varied.get_params()
        _require(what, estimator, steps, known)
        # The parameters of a step that the search puts in are those of what it puts in.
        known |= varied.set_params(**clone(steps, safe=False)).get_params()
        _require(what, estimator, part, known)


def with_params(estimator: Any, params: Params) -> Any:
    """A fresh copy of `estimator` with these parameters."""
    return clone(estimator).set_params(**{name: clone(value, safe=False) for name, value in params.items()})


def _require(what: str, estimator: Any, names: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise InvalidRequest(
                f"{what}: search names {name!r}, which {type(estimator).__name__} has no parameter of"
                f"{did_you_mean(name, known)}",
                parameter=name,
            )


def _grid_size(space: Space) -> int | None:
    """How many combinations there are; None for distributions, which have no end."""
    if any(hasattr(values, "rvs") for part in space.parts for values in part.values()):
        return None
    return len(ParameterGrid(list(space.parts)))


def _distributions(part: Mapping[str, Any]) -> dict[str, Any]:
    try:
        from optuna.distributions import BaseDistribution, CategoricalDistribution
    except ImportError:
        raise InvalidRequest(
            "search holds distributions of Optuna, which is not installed; pip install 'modelmill[optuna]'"
        ) from None
    found = {}
    for name, values in part.items():
        if isinstance(values, BaseDistribution):
            found[name] = values
            continue
        for value in values:
            if not isinstance(value, str | int | float | bool | None):
                raise InvalidRequest(
                    f"search: {name!r} holds {value!r}; Optuna chooses among texts, numbers, truth values and None"
                )
        found[name] = CategoricalDistribution(tuple(values))
    return found
