"""Frames out: Parquet or an Arrow stream, in pieces, as they are put together."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from services.feature.training.frames import Frame

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
