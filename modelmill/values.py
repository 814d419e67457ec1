"""Values by their declared type: how they are read from text, and what a feature's function may return."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from modelmill.columns import Column
from modelmill.errors import printable

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
