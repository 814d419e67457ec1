"""In which order runs are listed, and how a list is gone on with.

`-metrics.roc_auc,started` is by score from the highest, then by start from the earliest. Runs without a field come
last in either direction, numbers come before texts, and what is equal comes newest first.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from modelmill.errors import InvalidRequest
from services.trainer.runs.matching import as_number, bare

MOST_FIELDS = 5
"""Fields that one list may be ordered by."""
NEWEST = "-started"

Key = float | str | None
"""What a run is ordered by in one field."""


@dataclass(frozen=True)
class Direction:
    """A field to order by."""

    field: str
    descending: bool


def directions(text: str) -> list[Direction]:
    """The fields of an order such as `-metrics.roc_auc,started`.

    Raises:
        InvalidRequest: where one is empty, or there are too many.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) > MOST_FIELDS or not all(name.lstrip("+-") for name in names):
        raise InvalidRequest(
            f"order={text!r}; expected 1 to {MOST_FIELDS} fields with commas between, such as"
            " -metrics.roc_auc,started, where - is from the highest",
            field="order",
        )
    return [Direction(name.lstrip("+-"), name.startswith("-")) for name in names]


def sorted_rows(rows: np.ndarray, by: Sequence[Direction], ranks: Sequence[np.ndarray]) -> np.ndarray:
    """`rows`, which are newest first, in the order of `by`; `ranks` are of each of its fields in turn."""
    for direction, ranked in reversed(list(zip(by, ranks, strict=True))):
        values = ranked[rows]
        rows = rows[np.argsort(-values if direction.descending else values, kind="stable")]
    return rows


def key(value: Any) -> Key:
    """A column's value as it is ordered: a number, a text without quotes, or None where it is missing."""
    if value is None or isinstance(value, str):
        number = None if value is None else as_number(value)
        return bare(value) if number is None and value is not None else number
    return None if np.isnan(value) else float(value)


def comes_after(keys: Sequence[Key], others: Sequence[Key], by: Sequence[Direction]) -> bool:
    """Whether a run with `keys` is listed after one with `others`."""
    for one, other, direction in zip(keys, others, by, strict=True):
        mine, its = _comparable(one), _comparable(other)
        if mine == its:
            continue
        if one is None or other is None:
            return one is None
        return (mine < its) if direction.descending else (mine > its)
    return False


def _comparable(one: Key) -> tuple[int, float, str]:
    return (1, 0.0, one) if isinstance(one, str) else (0, 0.0 if one is None else one, "" if one is not None else " ")


def ranks(column: np.ndarray) -> np.ndarray:
    """A column as numbers of the same order: itself where it has numbers, places among its texts; NaN for missing."""
    if column.dtype != object:
        return column
    places = {text: _comparable(key(text)) for text in set(column.tolist()) - {None}}
    numbers = {place: float(number) for number, place in enumerate(sorted(set(places.values())))}
    ranked = {text: numbers[place] for text, place in places.items()} | {None: np.nan}
    return np.fromiter(map(ranked.__getitem__, column), dtype=float, count=len(column))


def to_cursor(order: str, keys: Sequence[Key]) -> str:
    """Where a page ended, as text that callers hand back."""
    return base64.urlsafe_b64encode(orjson.dumps([order, *keys])).decode().rstrip("=")


def from_cursor(cursor: str, order: str, length: int) -> list[Key]:
    """The keys of the run that a page ended with, of which there are `length`.

    Raises:
        InvalidRequest: for what is no cursor of a list in this order.
    """
    keys: list[Key]
    try:
        made_for, *keys = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidRequest(f"cursor={cursor[:80]!r}; expected the `next` of an earlier page") from None
    if made_for != order or len(keys) != length or not all(isinstance(one, Key) for one in keys):
        raise InvalidRequest(f"the cursor is of a list in the order {made_for!r}, not {order!r}; ask with that one")
    return keys
