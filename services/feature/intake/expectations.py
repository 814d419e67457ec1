"""What a source expects of a batch as a whole, against the rows that would be stored of it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from modelmill.declare.declarations import Source
from modelmill.errors import ExpectationFailed, Violation
from services.feature.intake.validate import EVENT_TIME


def check(source: Source, table: pa.Table) -> None:
    """That the valid rows of a batch are what `source` expects.

    Raises:
        ExpectationFailed: naming each expectation that they do not meet.
    """
    if found := list(violations(source, table)):
        raise ExpectationFailed(source.name, found)


def violations(source: Source, table: pa.Table) -> Iterator[Violation]:
    """Each expectation that `table`, the valid rows of a batch, does not meet."""
    expect, rows = source.expect, table.num_rows
    if expect.min_rows is not None and rows < expect.min_rows:
        yield Violation("min_rows", f"{rows} rows", f"at least {expect.min_rows}")
    if expect.max_rows is not None and rows > expect.max_rows:
        yield Violation("max_rows", f"{rows} rows", f"at most {expect.max_rows}")
    if not rows:
        return

    def stored(name: str) -> str:
        return EVENT_TIME if name == source.event_time else name

    for name, allowed in expect.null_share.items():
        nulls = table[stored(name)].null_count
        if nulls / rows > allowed:
            found = f"{nulls} of {rows} rows ({nulls / rows:.3g}) without a value"
            yield Violation(f"null_share of {name}", found, f"a share of at most {allowed:g}")
    if expect.unique:
        columns = [stored(name) for name in expect.unique]
        counted = table.select(columns).group_by(columns).aggregate([([], "count_all")])
        if repeated := rows - counted.num_rows:
            example = counted.filter(pa.compute.greater(counted["count_all"], 1)).slice(0, 1).to_pylist()[0]
            values = ", ".join(f"{name}={example[stored(name)]}" for name in expect.unique)
            found = f"{repeated} repeated rows, such as {values[:200]} {example['count_all']} times"
            yield Violation(f"unique by {', '.join(expect.unique)}", found, "each row once")
