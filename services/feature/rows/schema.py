"""What rows of a source are, as Arrow tables: columns, types, and what values must be beyond their type.

Each check gives the positions of the values that fail it, with the reason; missing values pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelmill import times
from modelmill.columns.types import TYPES, Constraints, arrow_type
from modelmill.times import iso

EVENT_TIME = "_event_time"
"""The column of stored rows that holds the event time, whatever the source calls it."""
TIME = pa.timestamp("us", "UTC")
ARROW = {dtype: arrow_type(dtype) for dtype in TYPES}
"""Column type to how Arrow holds it."""
EXPECTED = {**{dtype: of.expected for dtype, of in TYPES.items()}, "time": times.EXPECTED}
"""Column type, or `time`, to what an error says was expected."""
MAX_KEY_BYTES = 1024
"""The longest join key."""
MAX_TEXT_BYTES = 64 * 1024
"""The longest value of a text column."""
FIRST_TIME, LAST_TIME = datetime(1000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""Event times lie between them: they have a year of four digits, in any time zone."""
YEARS = f"a time of the years {FIRST_TIME.year} to {LAST_TIME.year}"

Bad = dict[int, str]
"""Position of a value to why it is refused."""


def key_breaches(texts: pa.Array) -> Bad:
    """Join keys that are missing, too long, or hold what nobody could read or type in `redis-cli`."""
    bad = dict.fromkeys(positions(pc.fill_null(pc.equal(texts, ""), True)), "is missing; expected a join key")
    bad |= dict.fromkeys(
        positions(pc.greater(pc.binary_length(texts), MAX_KEY_BYTES)),
        f"expected a join key of at most {MAX_KEY_BYTES} bytes",
    )
    unreadable = positions(pc.match_substring_regex(texts, r"\p{Cc}"))
    return bad | dict.fromkeys(unreadable, "expected a join key without control characters")


def text_breaches(texts: pa.Array) -> Bad:
    """Texts that are too long to be a feature."""
    long = positions(pc.greater(pc.binary_length(texts), MAX_TEXT_BYTES))
    return dict.fromkeys(long, f"expected text of at most {MAX_TEXT_BYTES} bytes")


def last_time(now: datetime, max_future: int) -> datetime:
    """The latest time that is taken at `now`, `max_future` seconds after it."""
    try:
        return min(now + timedelta(seconds=max_future), LAST_TIME)
    except OverflowError:
        return LAST_TIME


def future_breaches(found: pa.Array, last: datetime) -> Bad:
    """Times that are later than `last`."""
    ahead = positions(pc.greater(found, pa.scalar(last, found.type)))
    return (
        dict.fromkeys(ahead, f"is in the future; expected a time of at most {iso(last)} (max_future)") if ahead else {}
    )


def constraint_breaches(values: pa.Array, constraints: Constraints) -> Bad:
    """Values that a column's constraints do not allow."""
    bad: Bad = {}
    for allowed, expected in _masks(values, constraints):
        for position in positions(pc.invert(allowed)):
            bad.setdefault(position, f"expected {expected}")
    return bad


def _masks(values: pa.Array, constraints: Constraints) -> Iterator[tuple[pa.Array, str]]:
    """Which values each constraint allows, and what it expects."""
    if constraints.min is not None:
        yield pc.greater_equal(values, pa.scalar(constraints.min, values.type)), constraints.range
    if constraints.max is not None:
        yield pc.less_equal(values, pa.scalar(constraints.max, values.type)), constraints.range
    if constraints.choices:
        allowed = pc.is_in(values, pa.array(constraints.choices, values.type))
        yield pc.or_(allowed, pc.is_null(values)), constraints.chosen
    if constraints.pattern is not None:
        yield pc.match_substring_regex(values, constraints.anchored), constraints.matching


def positions(mask: pa.Array) -> list[int]:
    """Where `mask` is true; null counts as false."""
    found: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return found


def microseconds(times: pa.Array) -> np.ndarray:
    """[n] int64, microseconds since 1970, of n times of which none is null."""
    found: np.ndarray = times.cast(pa.int64()).to_numpy()
    return found


def of_size(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows`, the last one smaller."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(held)
            yield _whole(table.slice(0, rows))
            held, count = table.slice(rows).to_batches(), count - rows
    if count:
        yield _whole(pa.Table.from_batches(held))


def _whole(table: pa.Table) -> pa.RecordBatch:
    [batch] = table.combine_chunks().to_batches()
    return batch
