"""Several aggregates, read from the tiles of one group and entity with one command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from modelmill.state import keys
from modelmill.windows import SECOND, Reading, Scalar, finish, tile_fields


@dataclass(frozen=True)
class TileReader:
    """The aggregates `readings` of one group, all with its hop."""

    group: str
    readings: tuple[Reading, ...]

    def command(self, key: str, t: int) -> tuple[str, ...]:
        """The Redis command that reads the tiles of the entity `key` at time t, microseconds since 1970."""
        return ("HMGET", keys.tiles(self.group, key), *_fields(self.readings, t // SECOND * SECOND))

    def values(self, texts: Sequence[str | None], t: int) -> list[Scalar]:
        """The value of each reading, from what the command answered.

        Raises:
            ValueError: for a tile that is no JSON, which nothing that Modelmill writes is.
        """
        tiles: list[Any] = orjson.loads(f"[{','.join([text or 'null' for text in texts])}]")
        start = _start(self.readings, t)
        found = []
        for reading in self.readings:
            last = (reading.end(t) - start) // (reading.hop * SECOND)
            first = last - reading.window // reading.hop
            found.append(finish(reading, [tile for tile in tiles[first:last] if tile is not None]))
        return found


def _start(readings: Sequence[Reading], t: int) -> int:
    return min(reading.end(t) - reading.window * SECOND for reading in readings)


@lru_cache(maxsize=1024)
def _fields(readings: tuple[Reading, ...], t: int) -> tuple[str, ...]:
    """The names of all tiles in any of the windows, oldest first."""
    end = max(reading.end(t) for reading in readings)
    return tile_fields(end, (end - _start(readings, t)) // SECOND, readings[0].hop)
