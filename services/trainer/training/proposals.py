"""Which parameters the trials of a search have: listed beforehand, or proposed by Optuna one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, ParameterSampler

from modelmill.declare.search import Space
from modelmill.errors import InvalidRequest, did_you_mean

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
