"""Tiles: a windowed aggregate's rows, summed up per hop, and how a value is made of them.

A source's rows of one entity with start <= event time < start + hop are one tile. The value of an aggregate at time t
is made of the tiles of [end - window, end) with

    end = floor((t - available_after) / hop) * hop

so a window has the same edges online, where tiles are read, and in a training frame, where rows are. A tile is JSON
that one can read, by column and statistic; numbers that were measured are text that reads back as the same number:

    {"_rows": {"count": 3},
     "delay": {"count": 3, "sum": ["12.5"], "squares": ["97.25"], "min": "-4.0", "max": "9.0",
               "last": ["2013-01-31T05:12:00.000000Z", "2026-11-25T15:09:35.000000Z", "9.0"],
               "distinct": ["0f3a5be2c1d09a77", ...]}}

`sum` and `squares` are lists of numbers whose exact sum is meant (Shewchuk's partials, as in `math.fsum`): whatever the
order in which rows arrived, the exact sum is the same, and it is rounded once. Missing values are left out of every
statistic; a column without a value in a tile is not there. Minus zero counts as zero.

Times are microseconds since 1970, lengths seconds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import orjson

from modelmill.columns.types import TYPES
from modelmill.times import duration_text, moment

SECOND = 1_000_000
"""Microseconds."""
ROWS = "_rows"
"""Stands for a column in an aggregate that counts rows; no column may be named so."""
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "count": ("count",),
    "sum": ("sum",),
    "mean": ("count", "sum"),
    "min": ("min",),
    "max": ("max",),
    "std": ("count", "squares", "sum"),
    "last": ("last",),
    "count_distinct": ("distinct",),
}
"""Function of an aggregate to the statistics of its column that tiles keep for it."""
HUGE, TINY = 2.0**480, 2.0**-480
"""Numbers from `HUGE` on are too large to be added, so a tile counts them as `huge` instead, and sum, mean and std of
a window with one are null. Squares of numbers below `TINY` are too small for a float and count as 0."""
INT_LIMIT = 2**63
"""A sum of whole numbers from here on is null: 64 bits cannot hold it."""
SMALLEST = 256
"""Hashes that tell distinct values: a tile keeps this many, the smallest. Fewer distinct values are counted exactly;
more are estimated with a standard error of 1 / sqrt(SMALLEST - 2), about 6 %."""
FORMAT = 1
"""Of a tile's content; part of every group's name, so that tiles of another format are never read."""

Scalar = float | int | str | bool | None
Statistics = dict[str, Any]
Tile = dict[str, Statistics]


@dataclass(frozen=True)
class Reading:
    """All that it takes to read the value of an aggregate from tiles. `dtype` is its column's."""

    function: str
    column: str
    dtype: str
    window: int
    hop: int
    available_after: int

    def end(self, t: int) -> int:
        """Where the window of time t ends."""
        return window_end(t, self.hop, self.available_after)

    def fields(self, t: int) -> tuple[str, ...]:
        """The names of the tiles in the window of time t, oldest first."""
        return tile_fields(self.end(t), self.window, self.hop)


@dataclass(frozen=True)
class TileGroup:
    """The tiles that aggregates of one source share: those about the same entity with the same hop."""

    source: str
    entity: str
    key: str
    """The entity's join key, a column of the source."""
    hop: int
    reach: int
    """How far back from now the tiles lie that one of the aggregates may need."""
    statistics: tuple[tuple[str, str], ...]
    """(column, statistic) of all that a tile holds, sorted."""
    dtypes: tuple[tuple[str, str], ...]
    """(column, type) of the columns in `statistics`, sorted."""

    @cached_property
    def name(self) -> str:
        """Unlike that of any group whose tiles hold something else: `flights.origin.5m@1f3a9c2e`."""
        content = orjson.dumps([FORMAT, self.key, self.reach, self.statistics, self.dtypes])
        digest = hashlib.sha256(content).hexdigest()[:8]
        return f"{self.source}.{self.entity}.{self.hop // 60}m@{digest}"

    @property
    def kept(self) -> int:
        """Tiles of one entity that must be kept: the newest, not counting those after now.

        One more than the reach covers because t is rounded down, and one because clocks differ.
        """
        return -(-self.reach // self.hop) + 2

    @property
    def limit(self) -> int:
        """Tiles of one entity at which the oldest are deleted until `kept` are left, so that most writes delete none.

        Tiles after now come on top: as many as the source allows event times to lie in the future.
        """
        return 2 * self.kept + 64


def window_end(t: int, hop: int, available_after: int) -> int:
    """The end of the window that is read at time t; epoch-aligned."""
    return (t - available_after * SECOND) // (hop * SECOND) * (hop * SECOND)


@lru_cache(maxsize=4096)
def tile_fields(end: int, window: int, hop: int) -> tuple[str, ...]:
    """The names of the tiles in [end - window, end), oldest first."""
    return tuple(tile_field(end - (window - passed) * SECOND) for passed in range(0, window, hop))


def tile_field(start: int) -> str:
    """The name of the tile that begins at `start`: `2013-01-31T05:00Z`, which compares as text."""
    return f"{moment(start).replace(tzinfo=None).isoformat(timespec='minutes')}Z"


def value_text(value: float | int | str | bool) -> str:
    """A value as tiles hold it; the reader of its type reads it back."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def hashed(text: str) -> int:
    """A hash of 64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def finish(reading: Reading, tiles: Iterable[Tile]) -> Scalar:
    """The value of an aggregate over the tiles of a window, in any order; None where there is none."""
    column = reading.column
    found = [tile[column] for tile in tiles if column in tile]
    return _FINISH[reading.function](found, reading.dtype)


def deviation(count: int, total: tuple[int, int], squares: tuple[int, int]) -> float | None:
    """The sample standard deviation of `count` numbers, or None below 2.

    Args:
        total, squares: the exact sums of the numbers and of their squares, as (n, k) for n / 2**k, k >= 0.

    Returns:
        The square root of the variance, which is exact until it is rounded, so that nothing cancels.
    """
    if count < 2:
        return None
    (n, k), (m, j) = total, squares
    scale = max(2 * k, j)
    spread = (count * m << scale - j) - (n * n << scale - 2 * k)
    return math.sqrt(max(spread, 0) / (count * (count - 1) << scale))


def distinct(hashes: Sequence[int]) -> int:
    """How many distinct values there are whose `SMALLEST` smallest hashes are these, in rising order."""
    if len(hashes) < SMALLEST:
        return len(hashes)
    return ((SMALLEST - 1) << 64) // (hashes[SMALLEST - 1] + 1)


def partials(n: int, k: int) -> list[float]:
    """The fewest floats whose exact sum is n / 2**k, which itself is a sum of floats."""
    found: list[float] = []
    unit = 1 << k
    while n:
        part = n / unit  # rounded to the nearest float
        numerator, denominator = part.as_integer_ratio()
        n -= numerator * (unit // denominator)
        found.append(part)
    return found or [0.0]


def exactly(numbers: Sequence[float]) -> tuple[int, int]:
    """The exact sum of floats as (n, k) for n / 2**k."""
    parts = [math.fsum(numbers)]
    while rest := math.fsum((*numbers, *(-part for part in parts))):
        parts.append(rest)
    ratios = [part.as_integer_ratio() for part in parts]
    unit = max(denominator for _, denominator in ratios)
    return sum(n * (unit // denominator) for n, denominator in ratios), unit.bit_length() - 1


def _numbers(found: Sequence[Statistics], statistic: str) -> list[float]:
    return _read("float", [part for one in found for part in one[statistic]])


def _read(dtype: str, texts: Sequence[str]) -> list[Any]:
    """Read values; numbers as JSON, which is ten times faster than one by one, and as exact."""
    if dtype in ("float", "int"):
        numbers: list[Any] = orjson.loads(f"[{','.join(texts)}]")
        return numbers
    return list(map(TYPES[dtype].read, texts))


def _addable(found: Sequence[Statistics]) -> bool:
    return bool(found) and not [one for one in found if "huge" in one]


def _count(found: Sequence[Statistics], dtype: str) -> int:
    return sum([one["count"] for one in found])


def _sum(found: Sequence[Statistics], dtype: str) -> float | int | None:
    if not _addable(found):
        return None
    if dtype == "float":
        return math.fsum(_numbers(found, "sum")) + 0.0
    total = sum(map(int, _numbers(found, "sum")))
    return total if abs(total) < INT_LIMIT else None


def _mean(found: Sequence[Statistics], dtype: str) -> float | None:
    if not _addable(found):
        return None
    return (math.fsum(_numbers(found, "sum")) + 0.0) / _count(found, dtype)


def _std(found: Sequence[Statistics], dtype: str) -> float | None:
    if not _addable(found):
        return None
    return deviation(_count(found, dtype), exactly(_numbers(found, "sum")), exactly(_numbers(found, "squares")))


def _min(found: Sequence[Statistics], dtype: str) -> Scalar:
    return min(_read(dtype, [one["min"] for one in found]), default=None)


def _max(found: Sequence[Statistics], dtype: str) -> Scalar:
    return max(_read(dtype, [one["max"] for one in found]), default=None)


def _last(found: Sequence[Statistics], dtype: str) -> Scalar:
    return TYPES[dtype].read(max([one["last"] for one in found])[2]) if found else None


def _count_distinct(found: Sequence[Statistics], dtype: str) -> int:
    listed = [one["distinct"] for one in found]
    return distinct([int(text, 16) for text in _smallest(listed)])


def _smallest(listed: Sequence[Sequence[str]]) -> list[str]:
    """The `SMALLEST` smallest of all, from lists in rising order.

    Most often they are among the first few of each list, which are those that the lists left out exceed.
    """
    share = 2 * SMALLEST // max(len(listed), 1) + 32
    together = sorted(set().union(*[one[:share] for one in listed]))[:SMALLEST]
    if any(len(one) > share and (len(together) < SMALLEST or one[share] < together[-1]) for one in listed):
        together = sorted(set().union(*listed))[:SMALLEST]
    return together


_FINISH: dict[str, Callable[[Sequence[Statistics], str], Scalar]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "max": _max,
    "std": _std,
    "last": _last,
    "count_distinct": _count_distinct,
}


# --- hops: how far apart the edges of a windowed aggregate lie. All lengths are whole seconds

MINUTE, DAY = 60, 86_400
CHOICES = (DAY, 43_200, 21_600, 10_800, 7_200, 3_600, 1_800, 900, 600, 300, MINUTE)
"""What a hop is chosen from where a definition names none, coarsest first."""
ENOUGH_TILES = 24
"""Tiles a window that a chosen hop gives where it can: an edge is then at most 1/24 of the window too old."""
MAX_TILES = 366
"""Tiles in a window, and in a delay, at most: what one read has to merge, and what one entity keeps."""
MAX_WINDOW = 90 * DAY


def checked_hop(window: int, hop: int | None, delay: int) -> int:
    """The hop of a window: `hop` if it may be, or a chosen one where it is None.

    Raises:
        ValueError: where the window, the hop and the delay do not go together, saying what was expected.
    """
    if window > MAX_WINDOW:
        raise ValueError(f"window is {duration_text(window)}; expected at most {duration_text(MAX_WINDOW)}")
    if window % MINUTE:
        raise ValueError(f"window is {duration_text(window)}; expected whole minutes")
    if hop is None:
        hop = default_hop(window)
    elif hop < MINUTE or hop % MINUTE or (DAY % hop and hop % DAY):
        raise ValueError(f"hop is {duration_text(hop)}; expected whole minutes that divide a day, or whole days")
    if window < hop:
        raise ValueError(f"window {duration_text(window)} is shorter than hop {duration_text(hop)}")
    if window % hop:
        raise ValueError(f"window {duration_text(window)} is not a multiple of hop {duration_text(hop)}")
    for what, length in (("window", window), ("available_after", delay)):
        if length > MAX_TILES * hop:
            raise ValueError(
                f"{what} {duration_text(length)} is {-(-length // hop)} times hop {duration_text(hop)};"
                f" expected at most {MAX_TILES} times, so take a coarser hop"
            )
    return hop


def default_hop(window: int) -> int:
    """The coarsest of `CHOICES` that divides `window` into at least `ENOUGH_TILES`, or the finest that divides it."""
    fitting = [hop for hop in CHOICES if window % hop == 0]
    return next((hop for hop in fitting if window // hop >= ENOUGH_TILES), fitting[-1])
