"""Named, typed columns: of a source, and what features and inputs are."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args

from modelmill.columns.constraints import NO_CONSTRAINTS, ColumnSpec, Constraints
from modelmill.errors import printable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


Scalar = float | int | str | bool | None
DTYPES: dict[type, str] = {float: "float", int: "int", bool: "bool", str: "str"}


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
        if len(named) != 1 or not isinstance(named[0], type) or named[0] not in DTYPES:
            raise ValueError(
                f"column {name!r} has type {annotation!r}; expected float, int, bool or str, or one of them | None"
            )
        return cls(name, DTYPES[named[0]], NoneType in kinds)

    def __str__(self) -> str:
        return f"{self.dtype}{'?' if self.nullable else ''}"

    def allows(self, value: Scalar) -> bool:
        """Whether `value` is one of this column's; a whole number is also a float."""
        if value is None:
            return self.nullable
        return DTYPES.get(type(value)) == self.dtype or (self.dtype == "float" and type(value) is int)


# --- values by their declared type: how they are read from text, and what a feature's function may return

EXPECTED = {
    "float": "a finite number",
    "int": "a whole number of at most 18 digits",
    "bool": "true or false",
    "str": "text",
}
"""Column type to its values in words."""
INT_LIMIT = 10**18
READ: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bool": {"true": True, "false": False}.__getitem__,
    "str": str,
}
"""Column type to what reads its text, as Redis holds it."""
TYPES: dict[str, Any] = {"float": float | int, "int": int, "bool": bool, "str": str}
PLAIN = frozenset({float, int, bool, str, type(None)})
SHOWN = 80
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
        raise ValueError(f"returned {value}; expected {EXPECTED[dtype]}")
    if not isinstance(value, TYPES[dtype]) or (dtype != "bool" and isinstance(value, bool)):
        raise TypeError(f"returned {printable(value, SHOWN, repr)}; expected {dtype}")
    if dtype == "str":
        value.encode()  # raises for a lone surrogate, which is no text
    elif dtype == "float":
        return float(value)
    elif dtype == "int" and abs(value) >= INT_LIMIT:
        raise ValueError(f"returned {value}; expected {EXPECTED[dtype]}")
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
