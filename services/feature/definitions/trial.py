"""A feature function is tried out on a few rows before it is put in force.

What is looked at: the type of its values, whether it says the same twice, and a batch against single rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import pyarrow as pa

from modelmill.columns.types import Column, checked, let_stop
from modelmill.declare.declarations import Feature, Source
from modelmill.declare.definitions import ComputedRef
from modelmill.storage import Storage
from services.feature.intake.derive import derive
from services.feature.intake.validate import ARROW
from services.feature.store import history
from services.feature.store.backfill import inputs_of

ROWS = 32
"""On which a function is tried out."""
SHOWN_ROW = 200
"""Characters of a row that are shown."""
FAILURE = "nothing, since it fails,"
MADE_UP: dict[str, list[Any]] = {
    "float": [0.5, 1.0, -2.25, 1e6, 0.0],
    "int": [1, 0, -3, 1000, 2**53 + 1, 7],
    "bool": [True, False],
    "str": ["a", "b", "Ä b", "", "2013-01-31"],
}


def made_up_rows(source: Source) -> pa.Table:
    """Rows as a source may get them: values of each column's type, and some missing where they may be."""
    columns = {entity.key: pa.array([f"key-{i}" for i in range(ROWS)]) for entity in source.entities}
    return pa.table(columns | {name: _made_up(column) for name, column in source.columns.items()})


def stored_rows(storage: Storage, source: Source) -> pa.Table:
    """Some of the newest rows of a source; none where it has none."""

    def newest(names: Sequence[str]) -> pa.Table:
        table = history.read_whole(storage, names[-1]) if names else history.schema_of_rows(source).empty_table()
        return inputs_of(table.slice(max(0, table.num_rows - ROWS)), source)

    return history.reading(storage, source.name, newest)


def _made_up(column: Column) -> pa.Array:
    values = MADE_UP[column.dtype] + ([None] if column.nullable else [])
    return pa.array(list(islice(cycle(values), ROWS)), ARROW[column.dtype])


def try_out(feature: Feature, rows: pa.Table) -> str | None:
    """Why `feature` cannot be put in force, or None.

    A function may fail on some rows; it is refused if it fails on all of them by returning what its dtype is not. It
    is refused if it answers otherwise when it is asked again, and a batch function if what it computes for a row
    depends on the others in the batch.
    """
    first = _answers(feature, rows)
    backwards = range(rows.num_rows)[::-1]
    again = _answers(feature, rows.take(pa.array(backwards, pa.int64())))[::-1]
    if found := _difference(first, again):
        return _says_twice(found, rows.slice(found[0], 1).to_pylist()[0])
    if feature.batch:
        alone = [_answers(feature, rows.slice(i, 1))[0] for i in range(rows.num_rows)]
        if found := _difference(first, alone):
            position, one, other = found
            return (
                f"it returns {one} for the row {_shown(rows.slice(position, 1).to_pylist()[0])} in a batch of"
                f" {rows.num_rows}, but {other} for it alone; a batch function may use nothing of other rows"
            )
    reasons = [_wrong_type(feature, rows.slice(i, 1)) for i in range(rows.num_rows)]
    return reasons[0] if reasons and all(reasons) else None


def try_out_computed(ref: ComputedRef) -> str | None:
    """Why a request-time feature cannot be put in force, or None; refused as `try_out` does."""
    needs = {need: _made_up(needed.column) for need, needed in ref.needs.items()}
    rows = pa.table(needs).to_pylist()
    first = [_answer(partial(ref.feature.compute, row)) for row in rows]
    again = [_answer(partial(ref.feature.compute, row)) for row in rows[::-1]][::-1]
    if found := _difference(first, again):
        return _says_twice(found, rows[found[0]])
    reasons = [_wrong(ref.feature.column, partial(ref.feature.function, dict(row))) for row in rows]
    return reasons[0] if all(reasons) else None


def _answers(feature: Feature, rows: pa.Table) -> list[str]:
    """What a feature's function answers for each row, in words that tell any two values apart."""
    derived = derive(rows, {feature.name: feature})
    values = derived.columns[feature.name].to_pylist()
    return [
        FAILURE if failed is not None else repr(value)
        for value, failed in zip(values, derived.failed.to_pylist(), strict=True)
    ]


def _answer(compute: Callable[[], Any]) -> str:
    try:
        return repr(compute())
    except BaseException as error:
        let_stop(error)
        return FAILURE


def _difference(first: Sequence[str], other: Sequence[str]) -> tuple[int, str, str] | None:
    """The position of the first two answers that differ, and both."""
    pairs = enumerate(zip(first, other, strict=True))
    return next(((position, one, two) for position, (one, two) in pairs if one != two), None)


def _says_twice(found: tuple[int, str, str], row: Mapping[str, Any]) -> str:
    _, one, other = found
    return (
        f"it returns {one} for the row {_shown(row)}, and {other} when it is asked again; a feature may depend on its"
        " row alone, not on chance, on the time, or on what was computed before"
    )


def _shown(row: Mapping[str, Any]) -> str:
    return f"{dict(row)!r:.{SHOWN_ROW}}"


def _wrong_type(feature: Feature, row: pa.Table) -> str | None:
    if feature.batch:
        return _wrong(feature.column, lambda: feature.call_batch(row)[0])
    return _wrong(feature.column, lambda: feature.function(row.to_pylist()[0]))


def _wrong(column: Column, compute: Callable[[], Any]) -> str | None:
    """In what way the value that is computed is none of `column`; None also where computing it fails."""
    try:
        value = compute()
    except BaseException as error:  # what it returns is what counts here
        let_stop(error)
        return None
    try:
        checked(value, column)
    except TypeError as error:
        return str(error)
    except BaseException as error:
        let_stop(error)
    return None
