"""What a model is scored by, and in which parts: scorers of scikit-learn, or functions; greater is always better."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One of the scores of a model."""

    name: str
    """A scikit-learn scorer's name, or that of the function."""
    function: Callable[..., Any] | None = None
    """`(y_true, y_pred) -> float`, or what scikit-learn's `make_scorer` made; None for the scorer of that name."""

    @classmethod
    def of(cls, given: Any) -> Metric:
        """Read a name or a function.

        Raises:
            ValueError: for anything else.
        """
        if isinstance(given, str) and given:
            return cls(given)
        if hasattr(given, "_score_func"):  # a scorer object of scikit-learn, which is not imported for this
            return cls(given._score_func.__name__, given)
        if callable(given) and _takes_two(given):
            name = getattr(given, "__name__", type(given).__name__)
            if name.isidentifier():
                return cls(name, given)
        raise ValueError(
            f"metric {given!r}: expected the name of a scikit-learn scorer, a named function(y_true, y_pred) that"
            " returns a number of which greater is better, or a scorer that make_scorer made"
        )

    def __str__(self) -> str:
        return self.name


def all_of(metric: Any, more: Any) -> tuple[Metric, ...]:
    """The metric that decides, then the others, each once.

    Raises:
        ValueError: for what is no metric, and for two of one name.
    """
    if isinstance(more, str) or not isinstance(more, Sequence):
        raise ValueError(f"metrics={more!r}; expected a list of metrics")
    found: dict[str, Metric] = {}
    for one in map(Metric.of, (metric, *more)):
        if found.setdefault(one.name, one) != one:
            raise ValueError(f"metrics: two are named {one.name!r}; rename one")
    return tuple(found.values())


def columns_of(segments: Any) -> tuple[str, ...]:
    """The columns by which metrics are parted, each once.

    Raises:
        ValueError: for anything but a list of names.
    """
    if isinstance(segments, str) or not isinstance(segments, Sequence):
        raise ValueError(f"segments={segments!r}; expected a list of columns")
    if wrong := [column for column in segments if not isinstance(column, str) or not column]:
        raise ValueError(f"segments: {wrong[0]!r} is no column; expected its name")
    return tuple(dict.fromkeys(segments))


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # one without a signature, written in C
        return True
    return True
