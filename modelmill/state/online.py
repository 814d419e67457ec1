"""One entity as it lies in Redis, the hash of its features and the tiles of its aggregates, and how it is read.

Serving, lookup and explanation read entities by nothing else. So they agree on what a text stands for, which row is too
old, which windows an aggregate has, and what becomes of a text that nobody could have written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

import orjson

from modelmill.columns.types import TYPES
from modelmill.errors import CorruptFeature
from modelmill.state import keys
from modelmill.times import cutoff
from modelmill.windows import SECOND, Reading, Scalar, finish, tile_fields

Command = tuple[str, ...]
"""A Redis command with its arguments."""
Texts = list[str | None]
"""What an HMGET answers: None for a field that is not there."""
Status = Literal["present", "missing", "expired", "failed"]

EVENT_TIME, INGEST_TIME = slice(27), slice(28, None)
"""Where the times of a row stand in the text of both."""
_time = datetime.fromisoformat


@dataclass(frozen=True)
class TileReader:
    """The aggregates `readings` of one group, all with its hop."""

    group: str
    readings: tuple[Reading, ...]

    def command(self, key: str, t: int) -> Command:
        """The Redis command that reads the tiles of the entity `key` at time t, microseconds since 1970."""
        return ("HMGET", keys.tiles(self.group, key), *_fields(self.readings, t // SECOND * SECOND))

    def values(self, texts: Sequence[str | None], t: int) -> list[Scalar]:
        """The value of each reading, from what the command answered.

        Raises:
            ValueError, LookupError, TypeError, ArithmeticError: for a tile that is none, which nothing that Modelmill
                writes is.
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


@dataclass(frozen=True)
class StoredFeature:
    """A feature whose values are fields of entities' hashes."""

    name: str
    field: str
    dtype: str
    source: str


@dataclass(frozen=True)
class EntityReader:
    """What is read of entities of one kind; made once, for all that are read."""

    entity: str
    features: tuple[StoredFeature, ...]
    max_ages: Mapping[str, int | None]
    """Each source of `features` to the seconds after its event time at which a row is still used; None for ever."""
    tiles: tuple[TileReader, ...] = ()
    full: bool = False
    """Whether ingest times and the errors of functions are read too, of which serving makes no use."""

    sources: tuple[str, ...] = field(init=False)
    """Those of the features."""
    source_numbers: tuple[int, ...] = field(init=False)
    """The position of each feature's source among them."""
    decoders: tuple[Callable[[str], Any], ...] = field(init=False)
    """What makes each feature's value of its text."""
    fields: tuple[str, ...] = field(init=False)
    """What is read of a hash: a field a feature, then the times of each source's row, then what failed on it."""

    def __post_init__(self) -> None:
        sources = tuple(self.max_ages)
        failed = map(keys.failed_field, sources) if self.full else ()
        fields = (*(feature.field for feature in self.features), *map(keys.time_field, sources), *failed)
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "source_numbers", tuple(sources.index(one.source) for one in self.features))
        object.__setattr__(self, "decoders", tuple(TYPES[one.dtype].read for one in self.features))
        object.__setattr__(self, "fields", fields)

    def cutoffs(self, now: datetime) -> Sequence[str]:
        """Of each source the earliest event time that is not expired at `now`; empty where none ever expires."""
        ages = self.max_ages.values()
        return [cutoff(now, age) for age in ages] if any(ages) else ()


class StoredEntity(NamedTuple):
    """What was read of one entity; a tuple, since each prediction makes one."""

    reader: EntityReader
    key: str
    texts: Texts
    """Of the reader's fields."""
    tiles: list[Texts]
    """Of each of its groups of tiles."""

    def times(self) -> Texts:
        """Of each source, the event time and ingest time of its row in one text; None where no row has arrived.

        Raises:
            CorruptFeature: for a text that is no two times; serving looks at the first alone.
        """
        reader = self.reader
        first = len(reader.features)
        found = self.texts[first : first + len(reader.sources)]
        try:
            for text in found:
                if text is not None:
                    _time(text[EVENT_TIME])
                    if text[26::28] != "ZZ":  # the ends of both: a time without a zone has no age
                        raise ValueError
                    if reader.full:
                        _time(text[INGEST_TIME])
        except ValueError:
            field = keys.time_field(reader.sources[found.index(text)])
            raise CorruptFeature(reader.entity, self.key, field, str(text), "event and ingest time") from None
        return found

    def values(self, hidden: Collection[int] = (), unread: Collection[int] = ()) -> list[Any]:
        """The value of each feature; None where it is missing, where its source is among the `hidden` ones by
        position, and where its own position is among the `unread`.

        Raises:
            CorruptFeature: for a text that is no value of the feature's type.
        """
        reader, texts = self.reader, self.texts
        if hidden:
            pairs = zip(reader.source_numbers, texts, strict=False)
            texts = [None if source in hidden else text for source, text in pairs]
        if unread:
            texts = texts.copy()
            for number in unread:
                texts[number] = None
        try:
            return [
                None if text is None else decode(text) for decode, text in zip(reader.decoders, texts, strict=False)
            ]
        except (ValueError, KeyError):
            raise self._corrupt(texts) from None

    def _corrupt(self, texts: Texts) -> CorruptFeature:
        """The error for the first of `texts` that is no value."""
        for feature, text in zip(self.reader.features, texts, strict=False):
            try:
                TYPES[feature.dtype].read(text or "")
            except (ValueError, KeyError):
                if text is not None:
                    return CorruptFeature(
                        self.reader.entity, self.key, feature.field, text, TYPES[feature.dtype].expected
                    )
        raise AssertionError("each text is a value")

    def errors(self) -> list[str | None]:
        """Of each feature, why its function failed on the row.

        Raises:
            CorruptFeature: for a text that does not tell that.
        """
        reader = self.reader
        told: list[Any] = []
        for source, text in zip(reader.sources, self.texts[len(reader.features) + len(reader.sources) :], strict=True):
            try:
                told.append(orjson.loads(text or "{}"))
                if not isinstance(told[-1], dict):
                    raise ValueError
            except ValueError:
                field = keys.failed_field(source)
                raise CorruptFeature(reader.entity, self.key, field, str(text), "JSON of features and errors") from None
        return [told[n].get(feature.field) for n, feature in zip(reader.source_numbers, reader.features, strict=True)]

    def aggregates(self, t: int) -> list[list[Scalar]]:
        """The values that the readers of tiles make of their texts, read at time t.

        Raises:
            CorruptFeature: for a tile that is none.
        """
        found = []
        for reader, texts in zip(self.reader.tiles, self.tiles, strict=True):
            try:
                found.append(reader.values(texts, t))
            except (ValueError, LookupError, TypeError, ArithmeticError):
                told = ", ".join(filter(None, texts))
                raise CorruptFeature(self.reader.entity, self.key, reader.group, told, "tiles") from None
        return found


def read(
    ask: Callable[[list[Command]], Sequence[Texts]], wanted: Collection[tuple[EntityReader, str]], t: int
) -> list[StoredEntity]:
    """Each reader's entity with this key at time t, microseconds since 1970, all with one question.

    Args:
        ask: answers all of several commands. Where nothing is wanted it is not called.
    """
    commands: list[Command] = []
    for reader, key in wanted:
        if reader.fields:
            commands.append(("HMGET", keys.feature(reader.entity, key), *reader.fields))
        for tiles in reader.tiles:
            commands.append(tiles.command(key, t))
    answers = iter(ask(commands) if commands else ())
    return [
        StoredEntity(reader, key, next(answers) if reader.fields else [], list(islice(answers, len(reader.tiles))))
        for reader, key in wanted
    ]


def hidden(times: Sequence[str | None], cutoffs: Sequence[str]) -> Collection[int]:
    """The positions of the sources whose values do not count: no row has arrived, or it is too old."""
    if cutoffs:
        pairs = enumerate(zip(times, cutoffs, strict=True))
        return [n for n, (time, cutoff) in pairs if time is None or time < cutoff]
    return [n for n, time in enumerate(times) if time is None] if None in times else ()


def status(value: Any, error: str | None, *, expired: bool) -> Status:
    """Why a value is there or not.

    `expired`: its row is too old; `failed`: there is none, since the feature's function failed on the row; `missing`:
    no row has arrived, or it has no value.
    """
    if expired:
        return "expired"
    if value is not None:
        return "present"
    return "missing" if error is None else "failed"
