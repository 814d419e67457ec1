"""What a request for a training frame asks for, checked: of a model by a JSON body, of an uploaded spine by a query."""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from modelmill import times
from modelmill.declare import applied
from modelmill.declare.definitions import Definitions, FeatureRef, sources_of
from modelmill.errors import Conflict, InvalidRequest, MalformedBody, Rejection, TooLarge, UnknownName, did_you_mean
from modelmill.http.bodies import Flag, Query, Switch
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from services.feature.frames.frames import Frame, Wanted, model_frame, spine_frame
from services.feature.frames.spines import ROWS_PER_CHUNK, Spine
from services.feature.http.arguments import Asked, Mode, Moment
from services.feature.intake.csv_table import CsvTable
from services.feature.intake.decode import PANDAS_INDEX, check_content, check_names, open_parquet, plain, plain_type
from services.feature.intake.validate import PARQUET_TYPES, event_times, is_key, shown
from services.feature.rows.schema import EXPECTED, TIME, future_breaches, last_time
from services.feature.store import snapshots


class FrameOf(Asked):
    """The labelled rows of a model that a frame is made of, and which rows of its sources they see."""

    model: str = Field(description="a text")
    definitions: str | None = Field(None, description="the SHA-256 of definitions")
    start: Moment = None
    end: Moment = None
    as_of: Mode = "event"
    detail: Switch = False
    known_until: Any = Field(None, description=snapshots.EXPECTED.removeprefix("expected "))


class SpineQuery(Query):
    """The features that come to a spine, and its column of times."""

    strange = "query parameter {name!r} is not taken with a spine{known}"

    model: str | None = Field(None, description="the name of a model")
    features: str | None = Field(None, description="features such as user.feature_1,user.feature_2")
    entities: str | None = Field(None, description="the entities of plain names, such as user,item")
    time: str = Field("event_time", description="the name of the column of times")
    as_of: Mode = "event"
    detail: Flag = False


def frame_of_model(redis: Redis, storage: Storage, in_force: Definitions, body: FrameOf) -> Frame:
    """The frame that is asked for.

    Raises:
        UnknownName: for a model that is not declared, and for definitions that were never applied.
        InvalidRequest: naming any other value that cannot be used.
        Conflict: where the model has no labelled rows, or other definitions are in force than the request insists on.
    """
    definitions = _definitions(redis, in_force, body)
    model = definitions.model(body.model)
    sources = sources_of(definitions, model)
    at = snapshots.asked(body.known_until, sources) or snapshots.newest(redis, storage, sources)
    start, end = body.start, body.end
    return model_frame(storage, definitions, model, start=start, end=end, as_of=body.as_of, detail=body.detail, at=at)


def _definitions(redis: Redis, in_force: Definitions, body: FrameOf) -> Definitions:
    """Those in force, or, for a frame of a former time, those that the request names."""
    if body.definitions in (None, in_force.fingerprint):
        return in_force
    if body.known_until is None:
        raise Conflict("other definitions have come into force meanwhile; train again")
    return applied.load(redis, str(body.definitions))


def frame_of_spine(
    storage: Storage, definitions: Definitions, file: IO[bytes], content_type: str, query: SpineQuery
) -> Frame:
    """The uploaded spine in `file` with the features that the query asks for.

    `model=NAME` asks for that model's features; `features=user.f1,f2` for any, plain names being those of
    `entities=user,item`.

    Raises:
        UnknownName: for a model that is not declared.
        InvalidRequest: naming any other value, column or row that cannot be used.
        MalformedBody, TooLarge: as `uploaded`.
    """
    wanted = _wanted(definitions, query)
    keys = list(dict.fromkeys(definitions.entity(ref.entity).key for ref in (*wanted.refs, *wanted.auxiliary)))
    last = last_moment(definitions, [*wanted.refs, *wanted.auxiliary])
    spine = uploaded(file, content_type, keys=keys, time=query.time, last=last)
    return spine_frame(storage, definitions, spine, wanted)


def last_moment(definitions: Definitions, refs: Iterable[FeatureRef]) -> datetime | None:
    """The latest time that may be asked what it sees of features; None where there are none.

    It is the latest that a row of any of their sources may have now. Rows that a later one will see can still come, and
    meanwhile it would see the newest of all, which in a mistyped year looks like the past and is a leak of the future.
    """
    allowed = [definitions.source(ref.source).max_future for ref in refs]
    return last_time(datetime.now(UTC), max(allowed)) if allowed else None


@dataclass(frozen=True)
class _Names:
    """Features by name, and the entities that plain names are looked for in."""

    features: list[str]
    entities: list[str]


def _wanted(definitions: Definitions, query: SpineQuery) -> Wanted:
    if (query.model is None) == (query.features is None):
        raise InvalidRequest("expected with a spine either model=NAME or features=user.feature_1,user.feature_2")
    if query.features is None:
        return Wanted.by(definitions, definitions.model(str(query.model)), query.as_of, detail=query.detail)
    names = _names(definitions, query.features.split(","), query.entities)
    if twice := [name for name in names.features if names.features.count(name) > 1]:
        raise InvalidRequest(f"features: {twice[0]!r} is named twice")
    try:
        for entity in names.entities:
            definitions.entity(entity)
        return Wanted(definitions.resolve(names.entities, names.features), query.as_of, query.detail)
    except UnknownName as error:  # part of what is asked, not of the address: 422
        raise InvalidRequest(error.detail, **error.fields) from None
    except ValueError as error:  # an ambiguous name
        raise InvalidRequest(str(error)) from None


def _names(definitions: Definitions, features: list[str], entities: str | None) -> _Names:
    if computed := [name for name in features if name in definitions.request_features]:
        raise InvalidRequest(f"feature {computed[0]!r} is computed from inputs of a model; ask with model=NAME")
    if entities is not None:
        return _Names(features, entities.split(","))
    owners = [name.rpartition(".")[0] for name in features]
    if "" in owners:
        raise InvalidRequest(f"feature {features[owners.index('')]!r}: whose? write user.NAME, or add entities=user")
    return _Names(features, list(dict.fromkeys(owners)))


# --- a spine that is uploaded as CSV or Parquet: checked batch by batch, never in memory as a whole.
#
# It has a time column, the join keys of the entities whose features are asked for, and any other columns, which are
# carried through: as text where they came in CSV, an empty one being null; with their types where they came in Parquet.

MAX_SPINE_ROWS = 100_000_000
"""Of one upload, however small it was packed."""
FORMS = {
    "seconds since 1970": rf"^({times.SECONDS.pattern})$",
    "a time with an offset": r"[T ].*([zZ]|[+-]\d\d(:?\d\d)?)$",
}
NO_OFFSET = "a time without an offset"
"""Any other text that can be read as a time."""


def uploaded(
    file: IO[bytes], content_type: str, *, keys: Sequence[str], time: str, last: datetime | None = None
) -> Spine:
    """The spine in `file`, whose kind is one of `READERS`.

    Args:
        keys: the columns with join keys.
        time: the column with the times; times without an offset are UTC.
        last: the latest time that is taken.

    Raises:
        MalformedBody: where the file is not what its content type says.
        InvalidRequest: for a column that is missing or named twice, and for a row that cannot be used, by its number,
            column and value, and what was expected.
        TooLarge: for more than `MAX_SPINE_ROWS` rows or too many columns.
    """
    schema, batches = READERS[content_type](file)
    for name in (time, *keys):
        if name not in schema.names:
            raise InvalidRequest(
                f"the spine has no column {name!r}{did_you_mean(name, schema.names)}; expected"
                f" {', '.join(map(repr, dict.fromkeys([time, *keys])))}",
                column=name,
            )
    if time in keys:
        raise InvalidRequest(f"column {time!r} holds join keys; name the one with the times by time=...", column=time)
    for name in keys:
        kind = schema.field(name).type
        if not (is_key(kind) or pa.types.is_null(kind)):
            raise InvalidRequest(
                f"column {name!r} has type {kind}; expected join keys that are text or whole numbers", column=name
            )
    fields = [pa.field(name, TIME) if name == time else schema.field(name) for name in schema.names]
    return Spine(pa.schema(fields), time, _Checker(time, last).checked(batches))


class _Checker:
    """Reads the times of one batch after the other, all of which have the form of the first."""

    def __init__(self, time: str, last: datetime | None) -> None:
        self._time = time
        self._last = last
        self._rows = 0
        self._form: str | None = None

    def checked(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches with their times as `TIME`."""
        for batch in batches:
            if not batch.num_rows:
                continue
            values = pa.chunked_array([batch[self._time]])
            found = event_times(values)
            ahead = {} if self._last is None else future_breaches(found.values, self._last)
            bad = self._of_another_form(values) | ahead | found.bad
            if bad:
                raise self._refusal(values, min(bad), bad[min(bad)])
            yield batch.set_column(batch.schema.get_field_index(self._time), self._time, found.values)
            self._rows += batch.num_rows
            if self._rows > MAX_SPINE_ROWS:
                raise TooLarge("rows", None, MAX_SPINE_ROWS)

    def _of_another_form(self, values: pa.ChunkedArray) -> dict[int, str]:
        """The position of the first text of another form than the rows before, and why it is bad."""
        if not PARQUET_TYPES["str"](values.type):
            return {}
        forms = np.full(len(values), len(FORMS))
        for number, pattern in enumerate(FORMS.values()):
            forms[pc.fill_null(pc.match_substring_regex(values, pattern), False).to_numpy()] = number
        names = [*FORMS, NO_OFFSET]
        self._form = self._form or names[forms[0]]
        other = forms != names.index(self._form)
        return {int(other.argmax()): f"expected {self._form}, as in the rows before"} if other.any() else {}

    def _refusal(self, values: pa.ChunkedArray, position: int, reason: str) -> InvalidRequest:
        if values[position].is_valid:
            return refused(Rejection(self._rows + position + 1, self._time, shown(values, position), reason))
        return refused(Rejection(self._rows + position + 1, self._time, "", f"is missing; expected {EXPECTED['time']}"))


def refused(rejection: Rejection) -> InvalidRequest:
    """The error for a row that cannot be used."""
    return InvalidRequest(f"the spine cannot be used: {rejection}", **asdict(rejection))


def _csv(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if not file.seek(0, io.SEEK_END):
        raise MalformedBody("the body is empty; expected rows")
    table = CsvTable(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    check_names(table.header)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in table.rows():
            if rows.broken:
                raise refused(rows.broken[0])
            columns = [pc.if_else(pc.equal(column, ""), None, column) for column in rows.table.columns]
            yield from pa.table(columns, schema=table.schema).to_batches()

    return table.schema, batches()


def _parquet(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    try:
        parquet = open_parquet(file)
    except (pa.ArrowException, OSError) as error:
        raise MalformedBody(f"the body is not a complete Parquet file: {error}") from None
    if parquet.metadata.num_rows > MAX_SPINE_ROWS:
        raise TooLarge("rows", parquet.metadata.num_rows, MAX_SPINE_ROWS)
    check_names(parquet.schema_arrow.names)
    wanted = [field for field in parquet.schema_arrow if field.name != PANDAS_INDEX]
    schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in wanted])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in parquet.iter_batches(ROWS_PER_CHUNK, columns=schema.names):
                columns = [plain(batch[field.name]) for field in schema]
                check_content(columns)
                yield pa.record_batch(columns, schema=schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MalformedBody(f"the body is not a complete Parquet file: {error}") from None

    return schema, batches()


READERS: dict[str, Callable[[IO[bytes]], tuple[pa.Schema, Iterator[pa.RecordBatch]]]] = {
    "text/csv": _csv,
    "application/vnd.apache.parquet": _parquet,
}
"""Content type to what reads a file of it: its columns, and its rows in batches."""


# --- frames out: Parquet or an Arrow stream, in pieces, as they are put together.

PARQUET, ARROW_STREAM = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"


def encoded(frame: Frame, kind: str) -> Iterator[bytes]:
    """The frame as the content type `kind`, a row group or record batch a chunk; closes the frame at the end."""
    sink = _Pieces()
    with frame, _writer(sink, frame.schema, kind) as writer:
        for batch in frame.batches():
            writer.write_batch(batch)
            yield sink.taken()
    yield sink.taken()


def _writer(sink: _Pieces, schema: pa.Schema, kind: str) -> pq.ParquetWriter | pa.ipc.RecordBatchStreamWriter:
    if kind == ARROW_STREAM:
        return pa.ipc.new_stream(sink, schema)
    repeated = [field.name for field in schema if pa.types.is_string(field.type)]  # numbers hardly ever are
    return pq.ParquetWriter(sink, schema, use_dictionary=repeated)


class _Pieces(io.RawIOBase):
    """A file to write whose content is taken away piece by piece."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        self._held.append(bytes(content))
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        """What was written since it was called last."""
        held, self._held = self._held, []
        return b"".join(held)
