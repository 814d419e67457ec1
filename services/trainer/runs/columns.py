"""What filters and orders look at of all runs, in memory as Arrow columns: about 1 KB a run, so 10 MB for 10,000.

Each model has a table, so that a field which none of its runs has takes nothing. Runs that changed since the tables
were made are held beside them, as they lie in Redis, until there are many: tables take long to make.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from services.trainer.runs.filter import UNSEARCHED_FIELDS, Kind, Value, kind_of

MAX_CHANGED_RUNS = 100
"""That are held beside the tables."""
MAX_TEXT_CHARACTERS = 1000
"""Of a text that are looked at; what comes after them is not."""

NUMBER_PATTERN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
QUOTED_PATTERN = r"(?s)^(?:'(.*)'|\"(.*)\")$"
SHARED_TEXT = pa.dictionary(pa.int32(), pa.string())
"""How tables hold texts, as many runs have the same."""
TABLE_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "time": pa.float64(),
    "text": SHARED_TEXT,
    "list": SHARED_TEXT,
}
COMPARISONS = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}

Direction = Literal["ascending", "descending"]
Hash = Mapping[str, str]
"""A run as it lies in Redis."""


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


class RunColumns:
    """The columns of all runs that were put here and not removed."""

    def __init__(self) -> None:
        self.models: dict[str, str] = {}
        """Run to its model."""
        self.fields: dict[str, set[str]] = {}
        """Model to the names of all fields that its runs have had."""
        self._tables: dict[str, pa.Table] = {}
        self._outdated: set[str] = set()
        """The runs whose rows in the tables no longer count."""
        self._changed: dict[str, Hash] = {}
        """The runs beside the tables."""
        self._columns: dict[str, Column] = {}
        """Those asked for since the last change."""
        self._current: pa.ChunkedArray | None = None
        """Which rows of all tables count, where that was asked for since the last change."""

    def put(self, hashes: Mapping[str, Hash]) -> None:
        """Take runs in, by their ids, in the place of what was known of them; one that is no run is removed."""
        self.remove(hashes)
        for run_id, found in hashes.items():
            if model := found.get("model"):
                known = _searched(found) | {"id": run_id}
                self._changed[run_id] = known
                self.models[run_id] = model
                self.fields.setdefault(model, set()).update(known)
        if len(self._outdated) > MAX_CHANGED_RUNS:
            self._make_tables()

    def remove(self, ids: Iterable[str]) -> None:
        """Forget runs, where they are here."""
        for run_id in ids:
            self.models.pop(run_id, None)
            self._changed.pop(run_id, None)
            self._outdated.add(run_id)
        self._columns.clear()
        self._current = None

    def __getitem__(self, name: str) -> Column:
        """The values of a field, in the same order of runs as every other until the next change."""
        if name not in self._columns:
            kind = kind_of(name)
            changed = [_value(kind, found.get(name)) for found in self._changed.values()]
            values = pa.array(changed, pa.string() if TABLE_TYPES[kind] == SHARED_TEXT else pa.float64())
            stored = self._stored(name).cast(values.type)
            if self._outdated:
                if self._current is None:
                    self._current = _are_none_of(self._outdated, self._stored("id"))
                stored = stored.filter(self._current)
            self._columns[name] = Column(name, pa.chunked_array([*stored.chunks, values]).combine_chunks())
        return self._columns[name]

    def _stored(self, name: str) -> pa.ChunkedArray:
        """A field of the runs in all tables."""
        type_ = TABLE_TYPES[kind_of(name)]
        chunks: list[pa.Array] = []
        for table in self._tables.values():
            chunks += table[name].chunks if name in table.column_names else [pa.nulls(len(table), type_)]
        return pa.chunked_array(chunks, type_)

    def _make_tables(self) -> None:
        """Put the runs beside the tables into them."""
        of_models: dict[str, list[Hash]] = {}
        for found in self._changed.values():
            of_models.setdefault(found["model"], []).append(found)
        for model in self._tables.keys() | of_models.keys():
            table = self._tables.get(model, _table([]))
            current = _are_none_of(self._outdated, table["id"])
            if model in of_models or not pc.all(current).as_py():
                tables = [table.filter(current), _table(of_models.get(model, []))]
                self._tables[model] = _without_stale(pa.concat_tables(tables, promote_options="default"))
        self._changed.clear()
        self._outdated.clear()


def _searched(found: Hash) -> dict[str, str]:
    return {name: text for name, text in found.items() if text and name.partition(".")[0] not in UNSEARCHED_FIELDS}


def _are_none_of(runs: Collection[str], ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(ids.cast(pa.string()), value_set=pa.array(runs, pa.string())))


def _table(hashes: Sequence[Hash]) -> pa.Table:
    kinds = {name: kind_of(name) for name in sorted({"id"}.union(*hashes))}
    return pa.table(
        {
            name: pa.array([_value(kind, found.get(name)) for found in hashes], TABLE_TYPES[kind])
            for name, kind in kinds.items()
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
        if column.type == SHARED_TEXT and len(column.chunk(0).dictionary) > 2 * len(column):
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
