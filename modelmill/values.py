"""Values by their declared type: how they are read from text, and what a feature's function may return."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from modelmill.columns import Column

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
ERROR_LENGTH = 200
"""Characters of an error that are kept."""


def checked(value: Any, column: Column) -> Any:
    """`value` as what the feature declares.

    Raises:
        TypeError, ValueError: where it is something else.
    """
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if column.nullable:
            return None
        raise ValueError(f"returned {value}; expected {column.dtype} (declare dtype={column.dtype} | None to allow it)")
    dtype = column.dtype
    if not isinstance(value, TYPES[dtype]) or (dtype != "bool" and isinstance(value, bool)):
        raise TypeError(f"returned {value!r}; expected {dtype}")
    if dtype == "str":
        value.encode()  # raises for a lone surrogate, which is no text
    elif (dtype == "float" and math.isinf(value := float(value))) or (dtype == "int" and abs(value) >= INT_LIMIT):
        raise ValueError(f"returned {value}; expected {EXPECTED[dtype]}")
    return value


def sentence(error: Exception) -> str:
    """What a function raised, short enough to be kept with a row."""
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH].encode(errors="replace").decode()
