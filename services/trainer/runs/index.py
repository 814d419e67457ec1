"""All runs in this process's memory as Arrow tables, so that they can be looked through in milliseconds.

Redis stays the truth: before each answer the runs that changed since the last one are read from it, and a process that
starts reads them all. Only what filters and orders look at is kept: about 1 KB a run, so 10 MB for 10,000.

A run without a field is matched by no comparison of it, only by `is missing` and by `not`. Text recorded with quotes,
as Python prints it, is compared without them; a text that is a number is compared with a number as one.

An order such as `-metrics.roc_auc,started` is by score from the highest, then by start from the earliest. Runs without
the field come last in either direction, numbers come before texts, and what is equal comes newest first.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from threading import Event as Flag
from threading import Lock
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.errors import InvalidRequest
from modelmill.state.connections import AWAY
from modelmill.state.runs import BATCH, Runs
from services.trainer.runs.filter import (
    UNSEARCHED_FIELDS,
    And,
    Comparison,
    Condition,
    Kind,
    Missing,
    Not,
    OneOf,
    Or,
    Value,
    field_names,
    field_problem,
    kind_of,
    parse,
)

log = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""Between two looks at what changed while nobody asks."""
MAX_TEXT_CHARACTERS = 1000
"""Of a text that are looked at; what comes after them is not."""
MAX_ORDER_FIELDS = 5
NEWEST_FIRST = "-started"
Direction = Literal["ascending", "descending"]
TRIAL_FIELDS = {"parent", "trial"}
"""A filter on one of these is about trials; they are listed by no other."""

NUMBER_PATTERN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
QUOTED_PATTERN = r"(?s)^(?:'(.*)'|\"(.*)\")$"
TEXT = pa.dictionary(pa.int32(), pa.string())
"""Many runs have the same text: it is held once a model."""
COLUMN_TYPES: dict[Kind, pa.DataType] = {"number": pa.float64(), "time": pa.float64(), "text": TEXT, "list": TEXT}
COMPARISONS = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


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
        self._models: dict[str, str] = {}
        """Run to its model."""
        self._tables: dict[str, pa.Table] = {}
        """Model to its runs; a field that none of them has takes nothing."""
        self._columns: dict[str, Column] = {}
        """Field to its values of all runs, of those asked for since the last change."""

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
            models = {self._models[run_id] for run_id in ids if run_id in self._models}
            return {name for model in models for name in self._tables[model].column_names}

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
            known = set[str]().union(*(table.column_names for table in self._tables.values()))
            condition = parse(filter_text, known) if filter_text.strip() else None
            for field, _ in wanted:
                if problem := field_problem(field, known):
                    raise InvalidRequest(f"order={order!r}: {problem}", field="order")
            keys = [(key, direction) for field, direction in wanted for key in self._column(field).sort_keys(direction)]
            ids, started = self._column("id").values, self._column("started").values
            keys += [(started, "descending"), (ids, "descending")]  # what is equal so far
            columns = {"id": ids} | {str(place): key for place, (key, _) in enumerate(keys)}
            found = pa.table(columns).filter(self._selected(condition, model))
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
        for start in range(0, len(changed), BATCH):
            batch = changed[start : start + BATCH]
            self._read([run_id for run_id, _ in batch])
            self._position = batch[-1][1]
        if len(self._models) != count:  # some are gone from Redis, or missing here, as after a restored backup
            there = self.runs.ids()
            self._forget(self._models.keys() - there)
            missing = sorted(there - self._models.keys())
            for start in range(0, len(missing), BATCH):
                self._read(missing[start : start + BATCH])

    def _read(self, ids: Sequence[str]) -> None:
        """Take runs in as they lie in Redis, in the place of what was known of them."""
        of_models: dict[str, list[Mapping[str, str]]] = {}
        for run_id, found in zip(ids, self.runs.hashes(ids), strict=True):
            if model := found.get("model"):
                of_models.setdefault(model, []).append({**found, "id": run_id})
        self._forget(ids)
        for model, hashes in of_models.items():
            self._models.update((found["id"], model) for found in hashes)
            tables = [self._tables[model]] if model in self._tables else []
            self._tables[model] = _without_stale(pa.concat_tables([*tables, _table(hashes)], promote_options="default"))

    def _forget(self, ids: Collection[str]) -> None:
        gone = pa.array(ids, pa.string())
        for model in {self._models.pop(run_id) for run_id in ids if run_id in self._models}:
            table = self._tables[model]
            self._tables[model] = table.filter(pc.invert(pc.is_in(table["id"].cast(pa.string()), value_set=gone)))
        self._columns.clear()

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            type_ = COLUMN_TYPES[kind_of(name)]
            parts = [
                chunk
                for table in self._tables.values()
                for chunk in (table[name].chunks if name in table.column_names else [pa.nulls(len(table), type_)])
            ]
            values = pa.chunked_array(parts, type_).cast(pa.string() if type_ == TEXT else type_)
            self._columns[name] = Column(name, values.combine_chunks())
        return self._columns[name]

    def _selected(self, condition: Condition | None, model: str | None) -> pa.BooleanArray:
        """Which runs match, trials of a search only where they are asked for."""
        masks = [] if condition is None else [self._matches(condition)]
        if model is not None:
            masks.append(self._column("model").compare("=", Value("text", model, 0)))
        if condition is None or TRIAL_FIELDS.isdisjoint(field_names(condition)):
            masks.append(self._column("parent").missing())
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
                return self._column(field.name).missing()
            case OneOf(field, values):
                column = self._column(field.name)
                return reduce(pc.or_, [column.compare("=", value) for value in values])
            case Comparison(field, operator, value):
                return self._column(field.name).compare(operator, value)


@dataclass(frozen=True, eq=False)
class Column:
    """A field of all runs, null where a run lacks it."""

    name: str
    values: pa.Array
    """Numbers, of a time the seconds since 1970, or texts as they are recorded, of a list its JSON."""

    @cached_property
    def numbers(self) -> pa.Array:
        """Its numbers, of a text those that are numbers."""
        if not pa.types.is_string(self.values.type):
            return self.values
        are_numbers = pc.match_substring_regex(self.values, NUMBER_PATTERN)
        numbers = pc.if_else(are_numbers, self.values, None).cast(pa.float64())
        return pc.if_else(pc.is_finite(numbers), numbers, None)

    @cached_property
    def texts(self) -> pa.Array:
        """Its texts without the quotes that Python prints around them."""
        return pc.replace_substring_regex(self.values, QUOTED_PATTERN, r"\1\2")

    def missing(self) -> pa.BooleanArray:
        """True of the runs that lack the field."""
        return self.values.is_null()

    def compare(self, operator: str, value: Value) -> pa.BooleanArray:
        """True of the runs whose value compares so, false of all others."""
        if operator in COMPARISONS:
            found = COMPARISONS[operator](self.texts if value.kind == "text" else self.numbers, value.value)
        else:
            found = (_has_like if kind_of(self.name) == "list" else _like)(self.texts, operator, str(value.value))
        return pc.and_not(found.fill_null(operator == "!="), self.missing())  # a text is unlike any number

    def sort_keys(self, direction: Direction) -> list[pa.Array]:
        """What is sorted by in turn, nulls last: of a text its numbers, and then those that are none."""
        if not pa.types.is_string(self.values.type):
            return [self.values]
        keys = [self.numbers, pc.if_else(self.numbers.is_null(), self.texts, None)]
        return keys if direction == "ascending" else keys[::-1]


def _table(hashes: Sequence[Mapping[str, str]]) -> pa.Table:
    """Runs as they lie in Redis as a table of what is looked at."""
    found = {name for of in hashes for name, text in of.items() if text}
    fields = sorted(name for name in found if name.partition(".")[0] not in UNSEARCHED_FIELDS)
    return pa.table(
        {
            name: pa.array([_value(kind, of.get(name)) for of in hashes], COLUMN_TYPES[kind])
            for name, kind in zip(fields, map(kind_of, fields), strict=True)
        }
    )


def _value(kind: Kind, text: str | None) -> float | str | None:
    """A field's text as its column holds it; what is no value of its kind is missing."""
    if not text:
        return None
    try:
        if kind == "number":
            number = float(text)
            return number if math.isfinite(number) else None
        if kind == "time":
            return times.read(text).timestamp()
    except ValueError:
        return None
    return text[:MAX_TEXT_CHARACTERS] if kind == "text" else text


def _without_stale(table: pa.Table) -> pa.Table:
    """A table in one piece, without the texts that none of its runs has any more once they are the most."""
    table = table.combine_chunks()
    for place, column in enumerate(table.columns):
        if column.type == TEXT and len(column.chunk(0).dictionary) > 2 * len(column):
            table = table.set_column(place, table.field(place), column.cast(pa.string()).dictionary_encode())
    return table


def _like(texts: pa.Array, operator: str, pattern: str) -> pa.BooleanArray:
    """Arrow matches in a time that grows with the text's length alone, however the pattern is made."""
    if operator == "contains":
        return pc.match_substring(texts, pattern)
    return pc.match_like(texts, pattern.replace("\\", r"\\"), ignore_case=operator == "ilike")


def _has_like(texts: pa.Array, operator: str, pattern: str) -> pa.BooleanArray:
    """Which lists, given as JSON, have an entry that is like the pattern."""
    distinct = texts.dictionary_encode()
    entries = [list(map(str, orjson.loads(text))) for text in distinct.dictionary.to_pylist()]
    lists = pa.array(entries, pa.list_(pa.string()))
    found = pc.list_parent_indices(lists).filter(_like(pc.list_flatten(lists), operator, pattern))
    return pc.is_in(distinct.indices, value_set=found.cast(pa.int32()))


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
