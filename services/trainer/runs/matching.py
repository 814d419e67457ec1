"""Which runs a filter matches.

A run without a field is matched by no comparison of it, only by `is missing` and by `not`. Text recorded with quotes,
as Python prints it, is compared without them; a text that is a number is compared with a number as one.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import orjson

from modelmill.errors import InvalidFilter, did_you_mean
from services.trainer.runs.columns import Block
from services.trainer.runs.fields import GROUPS, SINGLE, UNSEARCHED, kind_of
from services.trainer.runs.filter import And, Comparison, Condition, Field, Missing, Not, OneOf, Or, Value, seconds

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

NUMBER_BEGINS = frozenset("+-.0123456789")


def check(text: str, condition: Condition, known: Collection[str]) -> Condition:
    """The condition of the filter `text` with times instead of texts where a time is compared.

    Raises:
        InvalidFilter: pointing at a field that no run has, or at a value that is not of its field's kind.
    """
    match condition:
        case And(conditions):
            return And(tuple(check(text, one, known) for one in conditions))
        case Or(conditions):
            return Or(tuple(check(text, one, known) for one in conditions))
        case Not(inner):
            return Not(check(text, inner, known))
        case Missing(field):
            _require_known(text, field, known)
            return condition
        case OneOf(field, values):
            _require_known(text, field, known)
            return OneOf(field, tuple(_typed(text, field, "=", value) for value in values))
        case Comparison(field, symbol, value):
            _require_known(text, field, known)
            return Comparison(field, symbol, _typed(text, field, symbol, value))


def require_field(name: str, known: Collection[str]) -> str | None:
    """Why `name` is no field that runs can be asked for; None where it is one."""
    listed = {*known, *SINGLE} - UNSEARCHED
    if name in listed:
        return None
    group, _, rest = name.partition(".")
    siblings = {field for field in listed if field.startswith(f"{group}.")}
    if group in GROUPS and rest and not siblings:
        return None  # no run has any of these yet, so none can be called wrong
    same_end = sorted(field for field in listed if field.rpartition(".")[2] == name)[:3]
    if same_end:
        return f"no run has a field {name!r}; did you mean {' or '.join(map(repr, same_end))}?"
    return f"no run has a field {name!r}{did_you_mean(name, siblings if rest and siblings else listed)}"


def _require_known(text: str, field: Field, known: Collection[str]) -> None:
    if problem := require_field(field.name, known):
        raise InvalidFilter(text, field.at, problem)


def _typed(text: str, field: Field, symbol: str, value: Value) -> Value:
    """`value` as the kind of `field` compares it."""
    kind = kind_of(field.name)
    matches = symbol not in COMPARISONS
    if kind == "list" and not matches:
        raise InvalidFilter(text, field.at, f"{field.name} is a list; expected {field.name} contains ...")
    if kind in ("number", "time") and matches:
        raise InvalidFilter(text, field.at, f"{field.name} is a {kind}; {symbol} is for texts")
    if kind == "number" and value.kind != "number":
        raise InvalidFilter(text, value.at, f"{field.name} is a number; expected one such as 0.7")
    if kind == "time" and value.kind == "text":
        try:
            return Value("time", seconds(str(value.value)), value.at)
        except ValueError:
            pass
    if kind == "time" and value.kind != "time":
        raise InvalidFilter(text, value.at, f"{field.name} is a time; expected one such as 2026-11-25T14:00Z or 7d ago")
    if kind == "text" and value.kind == "time":
        raise InvalidFilter(text, value.at, f"{field.name} is no time; put a text in quotes")
    return value


def matches(condition: Condition, block: Block) -> np.ndarray:
    """One truth value a run of the block."""
    match condition:
        case And(conditions):
            return _joined(np.logical_and, (matches(one, block) for one in conditions))
        case Or(conditions):
            return _joined(np.logical_or, (matches(one, block) for one in conditions))
        case Not(inner):
            return ~matches(inner, block)
        case Missing(field):
            column = block.column(field.name)
            return np.ones(len(block), dtype=bool) if column is None else missing(column)
        case OneOf(field, values):
            return _joined(np.logical_or, (matches(Comparison(field, "=", value), block) for value in values))
        case Comparison(field, symbol, value):
            return _compare(block.column(field.name), field.name, symbol, value, len(block))


def _joined(how: np.ufunc, masks: Iterable[np.ndarray]) -> np.ndarray:
    joined: np.ndarray = how.reduce(list(masks))
    return joined


def missing(column: np.ndarray) -> np.ndarray:
    """Where a column has no value."""
    if column.dtype == object:
        return np.fromiter((value is None for value in column), dtype=bool, count=len(column))
    nothing: np.ndarray = np.isnan(column)
    return nothing


def _compare(column: np.ndarray | None, name: str, symbol: str, value: Value, rows: int) -> np.ndarray:
    if column is None:
        return np.zeros(rows, dtype=bool)
    if column.dtype != object:
        found: np.ndarray = COMPARISONS[symbol](column, value.value)
        return found & ~np.isnan(column) if symbol == "!=" else found
    test = _test_of_lists(symbol, value) if kind_of(name) == "list" else _test_of_texts(symbol, value)
    known: dict[str | None, bool] = {None: False}
    for text in set(column.tolist()) - {None}:  # many runs have the same text
        known[text] = test(text)
    return np.fromiter(map(known.__getitem__, column), dtype=bool, count=rows)


def _test_of_texts(symbol: str, value: Value) -> Callable[[str], bool]:
    if symbol not in COMPARISONS:
        like = _is_like(symbol, str(value.value))
        return lambda text: like(bare(text))
    compare = COMPARISONS[symbol]
    if value.kind == "text":
        return lambda text: compare(bare(text), value.value)

    def test(text: str) -> bool:
        number = as_number(text)
        return symbol == "!=" if number is None else compare(number, value.value)

    return test


def _test_of_lists(symbol: str, value: Value) -> Callable[[str], bool]:
    wanted = str(value.value)
    if symbol == "contains":
        return lambda text: wanted in orjson.loads(text)
    like = _is_like(symbol, wanted)
    return lambda text: any(like(str(item)) for item in orjson.loads(text))


def _is_like(symbol: str, pattern: str) -> Callable[[str], bool]:
    if symbol == "contains":
        return lambda text: pattern in text
    first, *others = ("".join("." if letter == "_" else re.escape(letter) for letter in part)
                      for part in pattern.split("%"))  # fmt: skip
    if others:  # each part where it comes first, never tried again: no pattern takes long
        first += "".join(f"(?>.*?{part})" for part in others[:-1]) + f".*{others[-1]}"
    expression = re.compile(first, re.DOTALL | (re.IGNORECASE if symbol == "ilike" else 0))
    return lambda text: expression.fullmatch(text) is not None


def bare(text: str) -> str:
    """A recorded text without the quotes that Python prints around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def as_number(text: str) -> float | None:
    """A recorded text as a number; None where it is none, or no finite one."""
    if text[:1] not in NUMBER_BEGINS:  # quicker than to fail
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
