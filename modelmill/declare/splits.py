"""How a model's rows are split into those it is trained on and those it is evaluated on.

Model(..., split=by_time(0.25))                 # the newest quarter is held out
Model(..., split=by_group("user_id", 0.25))     # whole users are held out
Model(..., split=at_random(0.25, seed=7))
Model(..., split=lambda frame: frame["region"] == "north")  # True: held out
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SHARE = 0.25
"""Share of the rows that is held out where nothing else is said."""


@dataclass(frozen=True)
class ByTime:
    """The newest rows are held out, about `share` of all."""

    share: float = SHARE

    def __post_init__(self) -> None:
        _check_share(self)

    def __str__(self) -> str:
        return f"by_time({self.share})"


@dataclass(frozen=True)
class ByGroup:
    """All rows of some values of `column` are held out, chosen at random: about `share` of the rows."""

    column: str
    share: float = SHARE
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise ValueError(f"split: by_group(column={self.column!r}): expected the name of a column")
        _check_share(self)
        _check_seed(self)

    def __str__(self) -> str:
        return f"by_group({self.column!r}, {self.share}, seed={self.seed})"


@dataclass(frozen=True)
class AtRandom:
    """Rows are held out at random, about `share` of all; for a classifier that share of each class."""

    share: float = SHARE
    seed: int = 0

    def __post_init__(self) -> None:
        _check_share(self)
        _check_seed(self)

    def __str__(self) -> str:
        return f"at_random({self.share}, seed={self.seed})"


SplitRule = ByTime | ByGroup | AtRandom | Callable[[Any], Any]
"""A function gets the frame, a pandas DataFrame in order of event time, and returns which of its rows are held out."""


def by_time(share: float = SHARE) -> ByTime:
    """Hold out the newest rows, about `share` of all; rows of one event time stay together."""
    return ByTime(share)


def by_group(column: str, share: float = SHARE, *, seed: int = 0) -> ByGroup:
    """Hold out about `share` of the rows, so that no value of `column` is on both sides.

    `column` is a feature or an input of the model, a join key, or another column of the label's source.
    """
    return ByGroup(column, share, seed)


def at_random(share: float = SHARE, *, seed: int = 0) -> AtRandom:
    """Hold out about `share` of the rows at random, the same ones each time."""
    return AtRandom(share, seed)


def check(split: Any) -> SplitRule | None:
    """`split` if it says how to split.

    Raises:
        ValueError: otherwise.
    """
    if split is None or isinstance(split, ByTime | ByGroup | AtRandom):
        return split
    if callable(split) and not isinstance(split, type) and split not in (by_time, by_group, at_random):
        rule: SplitRule = split
        return rule
    raise ValueError(
        f"split={split!r}; expected by_time(0.25), by_group('user_id', 0.25), at_random(0.25, seed=0), or a function"
        " that gets the frame and returns which rows are held out"
    )


def described(split: SplitRule | None) -> str:
    """A rule in a few letters, for the catalogue."""
    return "" if split is None else split.__name__ if hasattr(split, "__name__") else str(split)


def _check_share(rule: Any) -> None:
    share = rule.share
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f"split: share={share!r}; expected a share between 0 and 1")


def _check_seed(rule: Any) -> None:
    if isinstance(rule.seed, bool) or not isinstance(rule.seed, int) or rule.seed < 0:
        raise ValueError(f"split: seed={rule.seed!r}; expected a whole number from 0")


# --- how much each row counts in a fit: by a column of the label's source, by its class, or by both


@dataclass(frozen=True)
class Weighting:
    """Weights of the rows that a model is fitted on; those that are held out count alike."""

    column: str | None = None
    """A column of the label's source with a number of at least 0 for each row."""
    classes: str | Mapping[Any, float] = field(default_factory=dict)
    """Class to its weight, 1 where it is not named; or `balanced`, for weights inverse to how frequent a class is."""

    def __bool__(self) -> bool:
        return bool(self.column or self.classes)

    @classmethod
    def of(cls, sample_weight: Any, class_weight: Any) -> Weighting:
        """Read what a model declares.

        Raises:
            ValueError: for anything but a column's name, and `"balanced"` or a dict of weights.
        """
        if not isinstance(sample_weight, str | None):
            raise ValueError(f"sample_weight={sample_weight!r}; expected the name of a column of the label's source")
        if class_weight is None:
            return cls(sample_weight)
        if class_weight == "balanced":
            return cls(sample_weight, "balanced")
        if not isinstance(class_weight, Mapping) or not class_weight:
            raise ValueError(f'class_weight={class_weight!r}; expected "balanced", or a dict of class to weight')
        for name, weight in class_weight.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"class_weight: {name!r} has {weight!r}; expected a number of at least 0")
        return cls(sample_weight, dict(class_weight))
