"""What an upload carries: its content type and its bytes, a piece at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from modelmill.client.transport import Progress
from modelmill.errors import InvalidRequest

CONTENT_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}
"""File suffix to the content type that the feature service expects."""
PIECE = 256 * 1024
"""Bytes sent between two calls of an upload's progress function."""


def of_file(path: Path, suffixes: Collection[str]) -> tuple[str, bytes]:
    """Content type, by the suffix, and content of a file.

    Raises:
        InvalidRequest: for any other suffix, and for a file that cannot be read.
    """
    if path.suffix.lower() not in suffixes:
        raise InvalidRequest(f"file {path.name!r}: expected a name ending in {', '.join(suffixes)}")
    try:
        return CONTENT_TYPES[path.suffix.lower()], path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"file {str(path)!r} cannot be read: {error.strerror}") from None


def pieces(body: bytes, progress: Progress | None) -> Iterator[bytes]:
    """`body` in pieces, with `progress` called after each."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        if progress is not None:
            progress(min(start + PIECE, len(body)), len(body))
