"""Runs as files: the five columns of a CSV that people keep by hand, or all that is recorded as Parquet.

Both are made piece by piece, so that no number of runs takes more memory than one piece of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from modelmill.state.runs import BATCH, Run, Runs
from services.trainer.runs.fields import FORMS, SINGLE, kind_of

CSV, PARQUET = "text/csv; charset=utf-8", "application/vnd.apache.parquet"
COLUMNS = ("timestamp", "model", "parameters", "score", "model_path")
"""Columns of the CSV."""
LEFT_OUT = {"lease"}
"""Fields that say nothing once a run has ended."""


def as_csv(runs: Runs, ids: Sequence[str]) -> Iterator[bytes]:
    """`timestamp, model, parameters, score, model_path` of each run, parameters as JSON."""
    yield _lines([COLUMNS])
    for some in _batches(ids):
        found = runs.read(some)
        yield _lines((r.started, r.model, orjson.dumps(r.params).decode(), score(r), r.package) for r in found)


def score(run: Run) -> float | None:
    """The metric that a run's model is judged by; where nothing says which that is, its only one, otherwise None."""
    if run.metric:
        return run.metrics.get(run.metric)
    return next(iter(run.metrics.values())) if len(run.metrics) == 1 else None


def as_parquet(runs: Runs, ids: Sequence[str], fields: Collection[str]) -> Iterator[bytes]:
    """All that is recorded of each run, a column a field; `fields` are the names of those that any of them has.

    Numbers are int64 or double, times timestamps in UTC, lists lists, and everything else, parameters included, is
    text as it was recorded.
    """
    schema = pa.schema([(name, _type_of(name)) for name in _columns(fields)])
    sink = _Pieces()
    with pq.ParquetWriter(sink, schema) as writer:
        for some in _batches(ids):
            found = [hash_ for hash_ in runs.hashes(some) if hash_]
            columns = [pa.array([_value(item.name, of) for of in found], item.type) for item in schema]
            writer.write_table(pa.table(columns, schema=schema))
            yield sink.taken()
    yield sink.taken()


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _columns(fields: Collection[str]) -> list[str]:
    """Every run's fields in the order of their declaration, each group's own by name in its place."""
    single = {name: [name] for name in SINGLE - LEFT_OUT}
    grouped = {name: sorted(field for field in fields if field.startswith(f"{name}.")) for name in FORMS}
    return [column for name in FORMS for column in single.get(name, grouped[name])]


def _type_of(name: str) -> pa.DataType:
    kind = kind_of(name)
    if kind == "number":
        return pa.int64() if FORMS.get(name, "").startswith("int") else pa.float64()
    return {"time": pa.timestamp("us", "UTC"), "list": pa.list_(pa.string()), "text": pa.string()}[kind]


def _value(name: str, of: Mapping[str, str]) -> Any:
    """A field of a run's hash as its column holds it; the empty text is an absent value."""
    text, kind = of.get(name, ""), kind_of(name)
    if not text:
        return [] if kind == "list" else None
    if kind == "number":
        return int(text) if FORMS.get(name, "").startswith("int") else float(text)
    if kind == "time":
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return [str(item) for item in orjson.loads(text)] if kind == "list" else text


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
