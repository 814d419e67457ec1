"""The runs of one model as columns in memory: what filters and orders look at, and nothing else.

A number or a time takes 8 bytes; a text 8 bytes and, once for all runs with the same text, the text itself. A field
that no run of the model has takes nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from services.trainer.runs.fields import UNSEARCHED, kind_of
from services.trainer.runs.filter import seconds

LONGEST_TEXT = 1000
"""Characters of a text that are looked at; what comes after them is not."""
FIRST_ROOM = 16
"""Runs that a new block has room for; it doubles when that is used up."""


class Block:
    """The runs of one model. Missing values are NaN in columns of numbers, and None in those of texts."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.columns: dict[str, np.ndarray] = {}
        self.room = FIRST_ROOM
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> np.ndarray | None:
        """The values of a field, one a run in the order of `ids`; None where no run has it."""
        found = self.columns.get(name)
        return None if found is None else found[: len(self.ids)]

    def put(self, run_id: str, found: Mapping[str, str]) -> None:
        """Take a run in as it lies in Redis, or its present state."""
        row = self._rows.setdefault(run_id, len(self.ids))
        if row == len(self.ids):
            self.ids.append(run_id)
            if len(self.ids) > self.room:
                self._grow()
        for name, column in self.columns.items():
            if name not in found:
                column[row] = absent(name)
        for name, text in found.items():
            if text and name not in UNSEARCHED:
                if name not in self.columns:
                    self.columns[name] = _empty(name, self.room)
                self.columns[name][row] = as_value(name, text)
            elif name in self.columns:
                self.columns[name][row] = absent(name)

    def remove(self, run_id: str) -> None:
        """Forget a run, if it is here; the last one takes its row."""
        row = self._rows.pop(run_id, None)
        if row is None:
            return
        last = self.ids.pop()
        for name, column in self.columns.items():
            column[row] = column[len(self.ids)]
            column[len(self.ids)] = absent(name)
        if last != run_id:
            self.ids[row] = last
            self._rows[last] = row

    def _grow(self) -> None:
        for name, column in self.columns.items():
            self.columns[name] = np.concatenate([column, _empty(name, self.room)])
        self.room *= 2


def as_value(name: str, text: str) -> Any:
    """A field's text as its column holds it; what is no value of its kind is missing."""
    kind = kind_of(name)
    try:
        if kind == "number":
            number = float(text)
            return number if math.isfinite(number) else np.nan
        if kind == "time":
            return seconds(text)
    except ValueError:
        return np.nan
    return sys.intern(str(text[:LONGEST_TEXT]) if kind == "text" else str(text))


def absent(name: str) -> float | None:
    """The missing value of a field's column."""
    return np.nan if kind_of(name) in ("number", "time") else None


def _empty(name: str, room: int) -> np.ndarray:
    numbers = kind_of(name) in ("number", "time")
    return np.full(room, np.nan) if numbers else np.full(room, None, dtype=object)
