"""What a model tries before it is trained: parameters to search, estimators to compare, and how each is judged.

    Model("user_target", ..., estimator=classifier, search={"clf__C": [0.1, 1, 10]}, cv=5)
    Model("user_target", ..., candidates=[logistic, Candidate(forest, search={"max_depth": [3, 5, None]})])

Nothing here imports scikit-learn, SciPy or Optuna: spaces, splitters and estimators may be functions that return them,
which only the trainer calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
Kind = Literal["grid", "random", "guided"]
"""Every combination of lists; combinations drawn at random; or what Optuna proposes from what earlier trials showed."""


NOT_GIVEN: Any = object()
"""Stands for an estimator that a model does not name."""


@dataclass(frozen=True)
class Candidate:
    """One of several estimators that a model compares.

    Args:
        estimator: a scikit-learn estimator, or a function that returns one.
        search: its parameters to search, as in `Model(search=...)`.
        trials: how many combinations are tried, as in `Model(trials=...)`.
        name: what it is called in runs; by default the name of its function or class.
    """

    estimator: Any
    search: Any = None
    trials: int | None = None
    name: str = ""

    def space(self) -> Space:
        """The parameters that are searched, checked; where `search` is a function it is called.

        Raises:
            ValueError: for a space that cannot be searched, with the parameter, its value and what was expected.
        """
        return Space.of(self.search() if callable(self.search) else self.search, self.trials)

    def __str__(self) -> str:
        if self.search is None:
            return self.name
        searched = self.search.__name__ if callable(self.search) else str(self.space())
        return f"{self.name}({searched}{f'; {self.trials} trials' if self.trials else ''})"


@dataclass(frozen=True)
class Space:
    """Parameters and the values that each may take."""

    kind: Kind
    parts: tuple[dict[str, Any], ...]
    """Parameter to its list of values or distribution. Of several parts each is searched by itself, as a scikit-learn
    `ParameterGrid` does; nothing to search is one empty part."""
    trials: int | None
    """How many combinations are tried; None for all."""

    @classmethod
    def of(cls, search: Any, trials: int | None) -> Space:
        """Check what a user has declared.

        Raises:
            ValueError: naming the parameter, its value and what was expected.
        """
        parts = [search] if isinstance(search, Mapping) else [{}] if search is None else search
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Mapping) for part in parts):
            raise ValueError(f"search={search!r}; expected a dict of parameter to values, or a list of such dicts")
        if search is not None and not any(parts):
            raise ValueError(f"search={search!r} names no parameter; leave it out")
        kinds = {_kind(name, values) for part in parts for name, values in part.items()}
        if {"random", "guided"} <= kinds:
            raise ValueError("search mixes distributions of SciPy and Optuna; expected those of one of them")
        kind: Kind = "guided" if "guided" in kinds else "random" if "random" in kinds or trials else "grid"
        if kind == "guided" and len(parts) > 1:
            raise ValueError("search is a list of dicts with distributions of Optuna; expected one dict")
        if trials is None and kind != "grid":
            raise ValueError("search holds distributions, which have no end; add trials=, how many values are tried")
        return cls(kind, tuple(dict(part) for part in parts), trials)

    def __str__(self) -> str:
        return " or ".join(
            ", ".join(f"{name}: {_brief(values)}" for name, values in sorted(part.items())) for part in self.parts
        )


@dataclass(frozen=True)
class Search:
    """The estimators that a model compares, and how each is judged."""

    candidates: tuple[Candidate, ...]
    """At least one."""
    cv: Any

    @classmethod
    def of(cls, estimator: Any, search: Any, trials: Any, cv: Any, candidates: Any) -> Search:
        """Check what a model declares.

        Raises:
            ValueError: naming the argument, its value and what was expected.
        """
        if (estimator is NOT_GIVEN) == (not candidates):
            raise ValueError("expected either estimator=... or candidates=[...]")
        if candidates:
            if search is not None or trials is not None:
                raise ValueError(
                    "search= and trials= belong to one of several candidates; write Candidate(function, search=...)"
                )
            compared = _compared(candidates)
        else:
            compared = (_checked(Candidate(estimator, search, trials, "estimator")),)
        plan = cls(compared, cv)
        if cv is not None and not plan.tries:
            raise ValueError(f"cv={cv!r} judges the trials of a search; expected search=... or candidates=[...] too")
        _check_cv(cv)
        return plan

    def __str__(self) -> str:
        """What is tried, in a few letters, for the catalogue; the same in every process."""
        return ", ".join(map(str, self.candidates)) if self.tries else ""

    @property
    def tries(self) -> bool:
        """Whether there is anything to try; otherwise the one estimator is trained as it is."""
        return len(self.candidates) > 1 or self.candidates[0].search is not None


def _compared(given: Any) -> tuple[Candidate, ...]:
    named = given.items() if isinstance(given, Mapping) else [("", item) for item in given]
    compared = []
    for name, item in named:
        plain = item if isinstance(item, Candidate) else Candidate(item)
        called = name or plain.name or getattr(plain.estimator, "__name__", type(plain.estimator).__name__)
        compared.append(_checked(Candidate(plain.estimator, plain.search, plain.trials, called)))
    names = [candidate.name for candidate in compared]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"candidates: {', '.join(map(repr, repeated))} is there twice; name them, as candidates={{'a': ...}}"
        )
    return tuple(compared)


def _checked(candidate: Candidate) -> Candidate:
    what, trials = f"candidate {candidate.name!r}: ", candidate.trials
    if not isinstance(candidate.name, str) or not NAME.fullmatch(candidate.name):
        raise ValueError(
            f"candidate name {candidate.name!r}: expected letters, digits and _, not starting with a digit; name it, as"
            " candidates={'forest': ...}"
        )
    what = "" if candidate.name == "estimator" else what
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise ValueError(f"{what}trials={trials!r}; expected a whole number from 1 on")
    if trials is not None and candidate.search is None:
        raise ValueError(f"{what}trials={trials!r} without search=...; expected both or neither")
    if not callable(candidate.search):
        try:
            candidate.space()
        except ValueError as error:
            raise ValueError(f"{what}{error}") from None
    return candidate


def _check_cv(cv: Any) -> None:
    """A number of folds, a share, a splitter, or a function that returns one of them."""
    if cv is None or callable(cv) or hasattr(cv, "get_n_splits"):
        return
    if isinstance(cv, int) and not isinstance(cv, bool) and cv >= 2:
        return
    if isinstance(cv, float) and 0 < cv < 1:
        return
    raise ValueError(
        f"cv={cv!r}; expected a number of folds from 2 on, a share between 0 and 1 to judge on, or a scikit-learn"
        " splitter such as TimeSeriesSplit(5)"
    )


def _kind(name: Any, values: Any) -> Kind:
    if not isinstance(name, str):
        raise ValueError(f"search: parameter {name!r}; expected its name as text")
    if type(values).__module__.startswith("optuna."):
        return "guided"
    if hasattr(values, "rvs"):
        return "random"
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise ValueError(
            f"search: {name!r} is {values!r}; expected a list of values, or a distribution of SciPy or Optuna"
        )
    if not len(values):
        raise ValueError(f"search: {name!r} is an empty list; expected at least one value")
    return "grid"


def _brief(values: Any) -> str:
    """A list by its length, a distribution by its kind."""
    if hasattr(values, "__len__"):
        return f"{len(values)} values"
    return str(getattr(getattr(values, "dist", None), "name", type(values).__name__))
