"""Named, typed columns, of a source and of features and inputs: the four types, and what a source may demand beyond
them of the values of a column and of a batch as a whole.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args

from modelmill.errors import printable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


Value = float | int | str | bool
Scalar = Value | None
INT_LIMIT = 10**18
"""Whole numbers are smaller than this."""


@dataclass(frozen=True)
class Type:
    """One of the types of columns."""

    python: type
    values: tuple[Any, ...]
    """The types of its values in Python: a whole number is also a float."""
    expected: str
    """Its values in words."""
    read: Callable[[str], Any]
    """What reads the text of one, as Redis holds it."""
    arrow: str
    """Its name in Arrow."""


TYPES = {
    "float": Type(float, (float, int), "a finite number", float, "float64"),
    "int": Type(int, (int,), "a whole number of at most 18 digits", int, "int64"),
    "bool": Type(bool, (bool,), "true or false", {"true": True, "false": False}.__getitem__, "bool"),
    "str": Type(str, (str,), "text", str, "string"),
}


def arrow_type(dtype: str) -> pa.DataType:
    """How Arrow holds a column of this type."""
    import pyarrow  # which the predictor does without

    return pyarrow.type_for_alias(TYPES[dtype].arrow)


# --- what a source may demand beyond types

SHOWN_CHOICES = 10
"""Choices that a sentence lists; of more it says how many there are."""


@dataclass(frozen=True)
class Constraints:
    """What the values of a column must be; a missing value is nullability's matter and always passes.

    `min` and `max` are inclusive; `pattern` is a regular expression (RE2) that the whole text must match.
    """

    min: float | int | None = None
    max: float | int | None = None
    choices: tuple[Value, ...] = ()
    pattern: str | None = None

    def __bool__(self) -> bool:
        return self != NO_CONSTRAINTS

    def __str__(self) -> str:
        return "; ".join(text for text in (self.range, self.chosen, self.matching) if text)

    @property
    def range(self) -> str:
        """`from 0 to 10`, `at least 0`, `at most 10` or nothing."""
        if self.min is not None and self.max is not None:
            return f"from {self.min!r} to {self.max!r}"
        if self.min is not None:
            return f"at least {self.min!r}"
        return "" if self.max is None else f"at most {self.max!r}"

    @property
    def chosen(self) -> str:
        """`one of 'a', 'b'` or nothing."""
        if not self.choices:
            return ""
        rest = len(self.choices) - SHOWN_CHOICES
        return f"one of {', '.join(map(repr, self.choices[:SHOWN_CHOICES]))}{f' or {rest} others' if rest > 0 else ''}"

    @property
    def matching(self) -> str:
        """`text matching '[A-Z]{3}'` or nothing."""
        return "" if self.pattern is None else f"text matching {self.pattern!r}"

    @property
    def anchored(self) -> str:
        """The pattern such that only the whole text matches it."""
        return rf"\A(?:{self.pattern})\z"

    def check(self, dtype: str) -> None:
        """That they can hold for a column of this type.

        Raises:
            ValueError: saying which of them contradict the type or each other.
        """
        for name, limit in (("min", self.min), ("max", self.max)):
            if limit is None:
                continue
            if dtype not in ("float", "int"):
                raise ValueError(f"{name}={limit!r} is a limit of numbers, and the column is {dtype}")
            _check_type(name, limit, dtype)
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min!r} is greater than max={self.max!r}")
        for choice in self.choices:
            _check_type("choice", choice, dtype)
            if not self._within(choice):
                raise ValueError(f"choice {choice!r} is not {self.range}")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("a choice is named twice")
        if self.pattern is not None:
            self._check_pattern(dtype)

    def _within(self, value: Any) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def _check_pattern(self, dtype: str) -> None:
        import pyarrow as pa  # RE2, as values are matched with; only who declares a pattern pays for the import
        import pyarrow.compute as pc

        if dtype != "str":
            raise ValueError(f"pattern={self.pattern!r} is for text, and the column is {dtype}")
        if not isinstance(self.pattern, str):
            raise ValueError(f"pattern={self.pattern!r}; expected a regular expression as text")
        try:
            for pattern in (self.pattern, self.anchored):
                # The empty text too: of no texts at all Arrow does not even look at the pattern.
                *matches, _ = pc.match_substring_regex(pa.array([*self.choices, ""], pa.string()), pattern).to_pylist()
        except pa.ArrowInvalid as error:
            reason = str(error).removeprefix("Invalid regular expression: ")
            raise ValueError(
                f"pattern={self.pattern!r} is no regular expression that RE2 takes (it has no look-around and no"
                f" references to groups): {reason}"
            ) from None
        if not all(matches):
            raise ValueError(f"choice {self.choices[matches.index(False)]!r} is not {self.matching}")


NO_CONSTRAINTS = Constraints()


@dataclass(frozen=True)
class ColumnSpec:
    """A column of a source before it has a name: its type, constraints and description."""

    annotation: Any
    constraints: Constraints
    description: str


def column(
    annotation: Any,
    *,
    min: float | int | None = None,
    max: float | int | None = None,
    choices: Sequence[Value] = (),
    pattern: str | None = None,
    description: str = "",
) -> ColumnSpec:
    """A column with constraints: `Source(..., columns={"age": column(int | None, min=0, max=150)})`.

    Args:
        annotation: `float`, `int`, `bool` or `str`, or one of them `| None`.
        min: the least value, inclusive.
        max: the greatest value, inclusive.
        choices: the only values allowed.
        pattern: a regular expression (RE2) that the whole text must match.
        description: what the column means.
    """
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise ValueError(f"choices={choices!r}; expected a list of values")
    return ColumnSpec(annotation, Constraints(min, max, tuple(choices), pattern), description)


@dataclass(frozen=True)
class Expect:
    """What every batch of rows that is ingested into a source must be as a whole, or nothing of it is stored.

    `null_share` is, by column, the greatest share of missing values; `unique` names columns that together tell all
    rows of a batch apart, where missing values count as equal. The rows that count are those that would be stored.
    """

    min_rows: int | None = None
    max_rows: int | None = None
    null_share: Mapping[str, float] = field(default_factory=dict)
    unique: Sequence[str] = ()

    def __str__(self) -> str:
        parts = [f"at least {self.min_rows} rows" if self.min_rows is not None else ""]
        parts.append(f"at most {self.max_rows} rows" if self.max_rows is not None else "")
        parts += [f"{name} null in at most {share:g} of the rows" for name, share in self.null_share.items()]
        parts.append(f"unique by {', '.join(self.unique)}" if self.unique else "")
        return "; ".join(part for part in parts if part)

    def check(self, known: Sequence[str]) -> None:
        """That it can hold for a source with these columns, keys and event time.

        Raises:
            ValueError: saying what of it cannot.
        """
        for name, rows in (("min_rows", self.min_rows), ("max_rows", self.max_rows)):
            if rows is not None and (type(rows) is not int or rows < 0):
                raise ValueError(f"{name}={rows!r}; expected a whole number of rows")
        if self.min_rows is not None and self.max_rows is not None and self.min_rows > self.max_rows:
            raise ValueError(f"min_rows={self.min_rows} is greater than max_rows={self.max_rows}")
        if isinstance(self.unique, str):
            raise ValueError(f"unique={self.unique!r}; expected a list of columns")
        for name in (*self.null_share, *self.unique):
            if name not in known:
                raise ValueError(f"{name!r} is none of its columns: {', '.join(known)}")
        for name, share in self.null_share.items():
            if not isinstance(share, float | int) or isinstance(share, bool) or not 0 <= share <= 1:
                raise ValueError(f"null_share of {name!r} is {share!r}; expected a share from 0 to 1")


def _check_type(what: str, value: Any, dtype: str) -> None:
    fits = type(value) in TYPES[dtype].values
    if fits and dtype in ("float", "int"):
        fits = math.isfinite(value) and (dtype == "float" or abs(value) < INT_LIMIT)
    if not fits:
        raise ValueError(f"{what} {value!r} is not of the column's type {dtype}")


# --- columns


@dataclass(frozen=True)
class Column:
    """A named, typed column. `dtype` is `float`, `int`, `bool` or `str`; `nullable` columns may lack a value."""

    name: str
    dtype: str
    nullable: bool
    constraints: Constraints = NO_CONSTRAINTS
    description: str = ""

    @classmethod
    def specified(cls, name: str, spec: Any) -> Column:
        """Read a type, or what `column(...)` made of one.

        Raises:
            ValueError: for anything else, and for constraints that contradict the type or each other.
        """
        if not isinstance(spec, ColumnSpec):
            return cls.of(name, spec)
        plain = cls.of(name, spec.annotation)
        try:
            spec.constraints.check(plain.dtype)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
        return replace(plain, constraints=spec.constraints, description=spec.description)

    @classmethod
    def of(cls, name: str, annotation: Any) -> Column:
        """Read `float` or `float | None`.

        Raises:
            ValueError: for anything else.
        """
        if isinstance(annotation, ColumnSpec):
            raise ValueError(f"column {name!r}: column(...) is for the columns of a source; expected its type alone")
        kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        named = [kind for kind in kinds if kind is not NoneType]
        if len(named) != 1 or named[0] not in (of.python for of in TYPES.values()):
            raise ValueError(
                f"column {name!r} has type {annotation!r}; expected float, int, bool or str, or one of them | None"
            )
        return cls(name, named[0].__name__, NoneType in kinds)

    def __str__(self) -> str:
        return f"{self.dtype}{'?' if self.nullable else ''}"

    def allows(self, value: Scalar) -> bool:
        """Whether `value` is one of this column's; a whole number is also a float."""
        if value is None:
            return self.nullable
        return type(value) in TYPES[self.dtype].values


# --- values by their declared type: how they are read from text, and what a feature's function may return

PLAIN = frozenset({float, int, bool, str, type(None)})
MAX_SHOWN_CHARACTERS = 80
"""Characters of a value that are shown."""
ERROR_LENGTH = 200
"""Characters of an error that are kept."""


def checked(value: Any, column: Column) -> Any:
    """`value`, which may be a scalar of NumPy, pandas or Arrow, as what the feature declares.

    None, NaN, pandas's NA and NaT and Arrow's null are a missing value.

    Raises:
        TypeError, ValueError: where it is something else.
    """
    if type(value) not in PLAIN:
        value = _plain(value)
    dtype = column.dtype
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if column.nullable:
            return None
        raise ValueError(f"returned {value}; expected {dtype} (declare dtype={dtype} | None to allow it)")
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"returned {value}; expected {TYPES[dtype].expected}")
    if not isinstance(value, TYPES[dtype].values) or (dtype != "bool" and isinstance(value, bool)):
        raise TypeError(f"returned {printable(value, MAX_SHOWN_CHARACTERS, repr)}; expected {dtype}")
    if dtype == "str":
        value.encode()  # raises for a lone surrogate, which is no text
    elif dtype == "float":
        return float(value)
    elif dtype == "int" and abs(value) >= INT_LIMIT:
        raise ValueError(f"returned {value}; expected {TYPES[dtype].expected}")
    return value


def _plain(value: Any) -> Any:
    """A scalar of NumPy, pandas or Arrow as Python has it; anything else as it is."""
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas, which is not imported here, has one of each
        return None
    if hasattr(value, "as_py"):
        return value.as_py()
    return value.item() if hasattr(value, "item") else value


def let_stop(error: BaseException) -> None:
    """Raise `error`, which the user's code seems to have raised, if it is a person's Ctrl-C.

    A function of the user's may raise anything, `SystemExit` too, and none of it is to end more than the value that it
    was asked for. Python raises Ctrl-C wherever the main thread is; requests are answered in other threads.
    """
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error


# --- Arrow tables as pandas DataFrames, without what pandas does to missing values by default


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table as a DataFrame, every value as it is.

    A column of whole numbers in which some are missing is `Int64`, one of truth values `boolean`: by itself pandas
    would make floats of the ones, which hold 53 bits, and objects of the others.
    """
    import pyarrow.types as kinds_of  # which the predictor does without

    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    lacking = {field.name: field.type for field in table.schema if table[field.name].null_count}
    kinds = {name: "Int64" for name, kind in lacking.items() if kinds_of.is_integer(kind)}
    kinds |= {name: "boolean" for name, kind in lacking.items() if kinds_of.is_boolean(kind)}
    return frame.astype(kinds) if kinds else frame
