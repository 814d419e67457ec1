"""The training frame: fetched from the feature service, and read into what scikit-learn takes.

Numbers, whole numbers and truth values all become float64 columns, missing ones NaN; text stays text, missing text is
the empty string. The predictor feeds the model the same way.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import IO, Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelmill.columns.types import Column, arrow_type, to_pandas
from modelmill.errors import InvalidRequest, RequestFailed, Unavailable
from modelmill.packages.package import Input
from modelmill.times import iso

EVENT_TIME = "_event_time"
ORIGIN = b"origin"
ATTEMPTS = 5
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each further pause is twice as long."""


@dataclass(frozen=True)
class Origin:
    """The part of the history that a frame was made of."""

    history: Mapping[str, str] = field(default_factory=dict)
    """Source to position."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Source to the rows until there."""

    @classmethod
    def of(cls, schema: pa.Schema) -> Origin:
        """What the feature service says in the metadata of a frame's schema."""
        found = orjson.loads((schema.metadata or {}).get(ORIGIN, b"{}"))
        return cls(
            {source: one["known_until"] for source, one in found.items()},
            {source: one["rows"] for source, one in found.items()},
        )


@dataclass(frozen=True)
class Frame:
    """n labelled rows in order of event time."""

    inputs: pd.DataFrame
    """[n, inputs]: a column an input of the model, in its order; float64, or object for text."""
    label: np.ndarray
    """[n], or [n, labels] where there are several."""
    extra: pd.DataFrame
    """[n, extra]: other columns, for the split and the segments, as they are stored."""
    times: np.ndarray
    """[n] event times, datetime64[us] in UTC."""
    dropped: int
    """Rows that were left out for a missing label or a missing value of an input that is not nullable."""
    fingerprint: str
    """SHA-256 of all values, in hexadecimal; the same however Parquet encodes them."""
    origin: Origin = Origin()
    """What it was made of."""
    truths: frozenset[str] = frozenset()
    """Inputs that are truth values, of which the estimator gets numbers."""

    def column(self, name: str) -> pd.Series:
        """[n] values of an input, truth values as such, or of an extra column."""
        if name not in self.inputs:
            return self.extra[name]
        return self.inputs[name].astype("boolean") if name in self.truths else self.inputs[name]

    def pandas(self, labels: Sequence[str]) -> pd.DataFrame:
        """[n] rows with all that is known of them: event time, inputs, the labels by name, extra columns."""
        times = pd.Series(self.times, dtype="datetime64[us]", name=EVENT_TIME).dt.tz_localize("UTC")
        named = pd.DataFrame(self.label.reshape(len(times), -1), columns=list(labels)).infer_objects()
        return pd.concat([times, self.inputs, named, self.extra], axis=1)

    @property
    def span(self) -> tuple[str, str]:
        """Event times of the oldest and the newest row."""
        first, last = (pd.Timestamp(t).to_pydatetime().replace(tzinfo=UTC) for t in (self.times[0], self.times[-1]))
        return iso(first), iso(last)


def fetch(
    http: httpx.Client,
    url: str,
    model: str,
    definitions: str,
    *,
    start: str | None,
    end: str | None,
    known_until: Mapping[str, str] | None = None,
) -> IO[bytes]:
    """The frame of `model` as an open Parquet file without a name, so that nothing is left of it after a crash.

    `definitions` is the fingerprint of those that the caller works with: a frame of others is refused. With
    `known_until`, source to position, it is the frame of that time, by whatever definitions.

    Raises:
        RequestFailed: for an error that the feature service answers.
        Unavailable: where it does not answer, or not whole, in any of `ATTEMPTS` attempts.
    """
    body: dict[str, Any] = {"model": model, "definitions": definitions, "start": start, "end": end}
    if known_until is not None:
        body["known_until"] = dict(known_until)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            return _download(http, f"{url}/training-frames", body)
        except (httpx.TransportError, Unavailable) as error:
            problem = error
    raise Unavailable(f"no training frame from {url} in {ATTEMPTS} attempts: {problem or type(problem).__name__}")


def read(
    file: IO[bytes], inputs: Sequence[Input], labels: Sequence[Column], extra_columns: Sequence[str] = ()
) -> Frame:
    """Read a frame with the columns that it carries beside. Several labels are of one type.

    Raises:
        InvalidRequest: for a column that is missing or of another type than declared, or where no row is left.
    """
    table = _columns(
        file, [EVENT_TIME, *(item.name for item in inputs), *(label.name for label in labels), *extra_columns]
    )
    columns, missing = {}, np.zeros(table.num_rows, np.bool_)
    try:
        for item in inputs:
            columns[item.name], absent = _input(table[item.name], item.dtype)
            if not item.nullable:
                missing |= absent
        for label in labels:
            missing |= pc.is_null(table[label.name], nan_is_null=True).to_numpy()
        keep = pa.array(~missing)
        truth = [_label(table[label.name].filter(keep), label.dtype) for label in labels]
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"the training frame does not hold the declared types: {error}") from None
    if missing.all():
        raise InvalidRequest(
            f"no row to train on: all {table.num_rows} rows lack the label"
            f" {', '.join(repr(label.name) for label in labels)} or a value of a feature that is not nullable",
            rows=table.num_rows,
        )
    times = table[EVENT_TIME].filter(keep).cast(pa.timestamp("us")).to_numpy()
    frame = pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})
    return Frame(
        frame[~missing].reset_index(drop=True),
        truth[0] if len(truth) == 1 else np.column_stack(truth),
        to_pandas(table.select(list(extra_columns)).filter(keep)),
        times,
        int(missing.sum()),
        fingerprint(table),
        Origin.of(table.schema),
        frozenset(item.name for item in inputs if item.dtype == "bool"),
    )


def fingerprint(table: pa.Table) -> str:
    """SHA-256 over names, types and values of the columns, in their order."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        digest.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        digest.update(pc.is_null(column).to_numpy().tobytes())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            for part in _texts(column):
                digest.update(part)
        else:
            kind = pa.bool_() if pa.types.is_boolean(column.type) else column.type
            zero = pa.scalar(0).cast(pa.int64()).cast(kind)
            digest.update(np.ascontiguousarray(pc.fill_null(column, zero).to_numpy()).tobytes())
    return digest.hexdigest()


def _texts(column: pa.ChunkedArray) -> tuple[bytes, bytes]:
    """Lengths and letters of all texts, missing ones as empty."""
    texts = pc.fill_null(column, "").cast(pa.large_string()).combine_chunks()
    _, offsets, letters = texts.buffers()
    if not len(texts) or letters is None:
        return bytes(8 * len(texts)), b""
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.diff(ends).tobytes(), letters.to_pybytes()[ends[0] : ends[-1]]


def _download(http: httpx.Client, url: str, body: dict[str, Any]) -> IO[bytes]:
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  whoever reads it closes it
    try:
        with http.stream("POST", url, json=body) as response:
            if response.status_code in (502, 503, 504):
                raise Unavailable(f"HTTP status {response.status_code}")
            if response.is_error:
                raise _failure(response)
            for piece in response.iter_bytes():
                file.write(piece)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _failure(response: httpx.Response) -> RequestFailed:
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = {"detail": f"the feature service answered {response.status_code}: {response.text[:200]}"}
    return RequestFailed(response.status_code, problem)


def _columns(file: IO[bytes], names: list[str]) -> pa.Table:
    try:
        parquet = pq.ParquetFile(file)
        lacking = [name for name in names if name not in parquet.schema_arrow.names]
        if lacking:
            raise InvalidRequest(
                f"the training frame lacks {', '.join(map(repr, lacking))}: the feature service works with other"
                " definitions; run `modelmill apply`"
            )
        return parquet.read(names)
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"the training frame is not Parquet: {error}") from None


def _input(column: pa.ChunkedArray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """A column as the model takes it, and which of its values are missing."""
    if dtype == "str":
        absent = pc.is_null(column).to_numpy()
        return pc.fill_null(column.cast(pa.string()), "").to_numpy().astype(np.object_), absent
    numbers = column.cast(pa.float64(), safe=False).to_numpy()  # whole numbers above 2**53 to the nearest
    return numbers, np.isnan(numbers)


def _label(column: pa.ChunkedArray, dtype: str) -> np.ndarray:
    kind = arrow_type(dtype)
    values: np.ndarray = column.cast(kind).to_numpy().astype(kind.to_pandas_dtype())
    return values
