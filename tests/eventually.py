"""Wait for a condition instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, within: float, saying: str) -> T:
    """The first true value of `condition`, asked every 20 ms; fails with `saying` after `within` seconds.

    An exception that `condition` raises counts as "not yet", and is shown if it stays so.
    """
    deadline = time.monotonic() + within
    while True:
        problem: Exception | None = None
        try:
            if value := condition():
                return value
        except Exception as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {saying}" + (f" ({problem!r})" if problem else ""))
        time.sleep(0.02)
