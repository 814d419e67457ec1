"""All runs in this process's memory, so that they can be looked through in milliseconds.

Redis stays the truth: before each answer the runs that changed since the last one are read from it, and a process that
starts reads them all.

A run without a field is matched by no comparison of it, only by `is missing` and by `not`. Text recorded with quotes,
as Python prints it, is compared without them; a text that is a number is compared with a number as one.

An order such as `-metrics.roc_auc,started` is by score from the highest, then by start from the earliest. Runs without
the field come last in either direction, numbers come before texts, and what is equal comes newest first.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from threading import Event as Flag
from threading import Lock
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill.errors import InvalidRequest
from modelmill.state.connections import AWAY
from modelmill.state.runs import RUNS_PER_READ, Runs
from services.trainer.runs.columns import Direction, RunColumns
from services.trainer.runs.filter import (
    And,
    Comparison,
    Condition,
    Missing,
    Not,
    OneOf,
    Or,
    Value,
    field_names,
    field_problem,
    parse,
)

log = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""Between two looks at what changed while nobody asks."""
MAX_ORDER_FIELDS = 5
NEWEST_FIRST = "-started"
TRIAL_FIELDS = {"parent", "trial"}
"""A filter on one of these is about trials; they are listed by no other."""


@dataclass(frozen=True)
class Page:
    """Some of the runs that match, in order."""

    ids: list[str]
    total: int
    """Runs that match in all."""
    next: str | None
    """The cursor of the page after this one."""


class RunIndex:
    """The runs of a registry in memory; any number of threads may ask."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._lock = Lock()
        self._position = 0.0
        self._columns = RunColumns()

    def follow(self, stop: Flag) -> None:
        """Read what changed every few seconds until `stop` is set, so that no question waits for much of it."""
        while True:
            try:
                with self._lock:
                    self._refresh()
            except AWAY as error:
                log.warning("cannot read the runs that changed: %s", error)
            if stop.wait(REFRESH_SECONDS):
                return

    def fields_of(self, ids: Sequence[str]) -> set[str]:
        """The names of all fields that the models of these runs have."""
        with self._lock:
            models = {self._columns.models[run_id] for run_id in ids if run_id in self._columns.models}
            return set().union(*(self._columns.fields[model] for model in models))

    def search(
        self,
        filter_text: str = "",
        *,
        model: str | None = None,
        order: str = NEWEST_FIRST,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """The runs that a filter matches (default all), after `cursor` where one is given.

        Raises:
            InvalidFilter: for a filter that cannot be read or names a field that no run has.
            InvalidRequest: for an order or a cursor that makes no sense.
        """
        wanted = _directions(order)
        with self._lock:
            self._refresh()
            columns = self._columns
            known = set[str]().union(*columns.fields.values())
            condition = parse(filter_text, known) if filter_text.strip() else None
            for field, _ in wanted:
                if problem := field_problem(field, known):
                    raise InvalidRequest(f"order={order!r}: {problem}", field="order")
            keys = [(key, direction) for field, direction in wanted for key in columns[field].sort_keys(direction)]
            ids, started = columns["id"].values, columns["started"].values
            keys += [(started, "descending"), (ids, "descending")]  # what is equal so far
            table = pa.table({"id": ids} | {str(place): key for place, (key, _) in enumerate(keys)})
            found = table.filter(self._selected(condition, model))
        sorting = [(str(place), direction) for place, (_, direction) in enumerate(keys)]
        rest = found.filter(_after(found, sorting, _from_cursor(cursor, order, found))) if cursor else found
        count = len(rest) if limit is None else min(limit, len(rest))
        page = rest.take(pc.select_k_unstable(rest, count, sorting)) if count else rest
        last = page[-1:].drop_columns("id").to_pylist() if count < len(rest) else []
        return Page(page["id"].to_pylist(), len(found), _to_cursor(order, [*last[0].values()]) if last else None)

    def _refresh(self) -> None:
        if not self._position:
            self.runs.mark_all()
        changed, count = self.runs.changes(self._position)
        for start in range(0, len(changed), RUNS_PER_READ):
            batch = changed[start : start + RUNS_PER_READ]
            self._read([run_id for run_id, _ in batch])
            self._position = batch[-1][1]
        if len(self._columns.models) != count:  # some are gone from Redis, or missing here, as after a restored backup
            there = self.runs.ids()
            self._columns.remove(self._columns.models.keys() - there)
            missing = sorted(there - self._columns.models.keys())
            for start in range(0, len(missing), RUNS_PER_READ):
                self._read(missing[start : start + RUNS_PER_READ])

    def _read(self, ids: Sequence[str]) -> None:
        self._columns.put(dict(zip(ids, self.runs.hashes(ids), strict=True)))

    def _selected(self, condition: Condition | None, model: str | None) -> pa.BooleanArray:
        """Which runs match, trials of a search only where they are asked for."""
        masks = [] if condition is None else [self._matches(condition)]
        if model is not None:
            masks.append(self._columns["model"].compare("=", Value("text", model, 0)))
        if condition is None or TRIAL_FIELDS.isdisjoint(field_names(condition)):
            masks.append(self._columns["parent"].missing())
        return reduce(pc.and_, masks)

    def _matches(self, condition: Condition) -> pa.BooleanArray:
        match condition:
            case And(conditions):
                return reduce(pc.and_, map(self._matches, conditions))
            case Or(conditions):
                return reduce(pc.or_, map(self._matches, conditions))
            case Not(inner):
                return pc.invert(self._matches(inner))
            case Missing(field):
                return self._columns[field.name].missing()
            case OneOf(field, values):
                column = self._columns[field.name]
                return reduce(pc.or_, [column.compare("=", value) for value in values])
            case Comparison(field, operator, value):
                return self._columns[field.name].compare(operator, value)


def _directions(order: str) -> list[tuple[str, Direction]]:
    """The fields of an order such as `-metrics.roc_auc,started`."""
    fields = [name.strip() for name in order.split(",")]
    if len(fields) > MAX_ORDER_FIELDS or not all(name.lstrip("+-") for name in fields):
        raise InvalidRequest(
            f"order={order!r}; expected 1 to {MAX_ORDER_FIELDS} fields with commas between, such as"
            " -metrics.roc_auc,started, where - is from the highest",
            field="order",
        )
    return [(name.lstrip("+-"), "descending" if name.startswith("-") else "ascending") for name in fields]


def _after(found: pa.Table, sorting: Sequence[tuple[str, Direction]], ended: Sequence[Any]) -> pa.BooleanArray:
    """Which runs come after one with the values `ended`, whether or not that is still there."""
    after, equal = pa.scalar(False), pa.scalar(True)
    for (name, direction), value in zip(sorting, ended, strict=True):
        column = found[name]
        if value is None:  # nulls are last, so none is later
            equal = pc.and_(equal, column.is_null())
        else:
            later = (pc.greater if direction == "ascending" else pc.less)(column, value).fill_null(True)
            after = pc.or_(after, pc.and_(equal, later))
            equal = pc.and_(equal, pc.equal(column, value).fill_null(False))
    return after


def _to_cursor(order: str, ended: Sequence[Any]) -> str:
    """Where a page ended, as text that callers hand back."""
    return base64.urlsafe_b64encode(orjson.dumps([order, *ended])).decode().rstrip("=")


def _from_cursor(cursor: str, order: str, found: pa.Table) -> list[Any]:
    ended: list[Any]
    try:
        made_for, *ended = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidRequest(f"cursor={cursor[:80]!r}; expected the `next` of an earlier page") from None
    types = [str if type_ == pa.string() else float for type_ in found.schema.types[1:]]
    if (
        made_for != order
        or len(ended) != len(types)
        or not all(value is None or type(value) is type_ for value, type_ in zip(ended, types, strict=True))
    ):
        raise InvalidRequest(f"the cursor is of a list in the order {made_for!r}, not {order!r}; ask with that one")
    return ended
