"""A feature function is tried out on a few rows before it is put in force: its type, a batch against single rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import pyarrow as pa

from modelmill.columns import Column
from modelmill.declarations import Feature, Source
from modelmill.model_features import ComputedRef
from modelmill.storage import Storage
from modelmill.values import checked
from services.feature.intake.derive import call_batch
from services.feature.intake.validate import ARROW
from services.feature.store import history
from services.feature.store.backfill import inputs_of

ROWS = 32
"""On which a function is tried out."""
MADE_UP: dict[str, list[Any]] = {
    "float": [0.5, 1.0, -2.25, 1e6, 0.0],
    "int": [1, 0, -3, 1000, 7],
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

    A function may fail on some rows; it is refused if it fails on all of them by returning what its dtype is not. A
    batch function is refused if what it computes for a row depends on the others in the batch.
    """
    if feature.batch and (reason := _differs(feature, rows)):
        return reason
    reasons = [_wrong_type(feature, rows.slice(i, 1)) for i in range(rows.num_rows)]
    return reasons[0] if reasons and all(reasons) else None


def _wrong_type(feature: Feature, row: pa.Table) -> str | None:
    if feature.batch:
        return _wrong(feature.column, lambda: call_batch(feature, row)[0])
    return _wrong(feature.column, lambda: feature.function(row.to_pylist()[0]))


def _wrong(column: Column, compute: Callable[[], Any]) -> str | None:
    """In what way the value that is computed is none of `column`; None also where computing it fails."""
    try:
        value = compute()
    except Exception:  # the user's code may raise anything; what it returns is what counts here
        return None
    try:
        checked(value, column)
    except TypeError as error:
        return str(error)
    except ValueError:
        return None
    return None


def try_out_computed(ref: ComputedRef) -> str | None:
    """Why a request-time feature cannot be put in force, or None; refused as `try_out` does."""
    needs = {need: _made_up(needed.column) for need, needed in ref.needs.items()}
    rows = pa.table(needs).to_pylist()
    reasons = [_wrong(ref.feature.column, partial(ref.feature.function, row)) for row in rows]
    return reasons[0] if all(reasons) else None


def _differs(feature: Feature, rows: pa.Table) -> str | None:
    try:
        together = call_batch(feature, rows)
        alone = [call_batch(feature, rows.slice(i, 1))[0] for i in range(rows.num_rows)]
    except Exception:  # it may fail on these rows and not on others
        return None
    for position, (one, other) in enumerate(zip(together, alone, strict=True)):
        if one != other and (one == one or other == other):  # NaN is the same as NaN
            row = rows.slice(position, 1).to_pylist()[0]
            return (
                f"it returns {one!r} for the row {row} in a batch of {rows.num_rows}, but {other!r} for it alone;"
                " a batch function may use nothing of other rows"
            )
    return None
