"""Runs as tables: side by side, as the CSV that people keep by hand, or as Parquet with all that is recorded.

Files are made piece by piece, so that no number of runs takes more memory than one piece of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from modelmill import times
from modelmill.state.runs import RUNS_PER_READ, Run, Runs
from services.trainer.runs.filter import FIELD_TYPES, SINGLE_FIELDS, kind_of

MAX_COMPARED_RUNS = 20
CSV_TYPE, PARQUET_TYPE = "text/csv; charset=utf-8", "application/vnd.apache.parquet"
CSV_COLUMNS = ("timestamp", "model", "parameters", "score", "model_path")
UNEXPORTED_FIELDS = {"lease"}
"""Fields that say nothing once a run has ended."""

Facts = Mapping[str, Any]
"""What one run says in one section, by name."""


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs' ids, and of each section its lines: those of the first run in its order, then what only others have."""
    sections = {}
    for section, facts_of in SECTIONS.items():
        facts = [facts_of(run) for run in runs]
        names = dict.fromkeys(name for some in facts for name in some)
        lines = [_line(section, name, [some.get(name) for some in facts]) for name in names]
        sections[section] = [line for line in lines if any(value not in (None, "") for value in line["values"])]
    return {"runs": [run.id for run in runs], "sections": sections}


def _line(section: str, name: str, values: list[Any]) -> dict[str, Any]:
    """One fact of all compared runs, None where a run has none; of numbers with how much more each is than the first
    run's."""
    differs = any(value != values[0] for value in values)
    numbers = section in SECTIONS_OF_AMOUNTS and differs and isinstance(values[0], int | float)
    change = [value - values[0] if isinstance(value, int | float) else None for value in values] if numbers else None
    return {"name": name, "values": values, "differs": differs, "change": change}


def _fields(*names: str) -> Callable[[Run], Facts]:
    return lambda run: {name: getattr(run, name) for name in names}


def _features(run: Run) -> Facts:
    """Each feature with the version that it had; inputs of the request, which no source holds, are just there."""
    stored = {name: version for name, _, version in (field.partition("@") for field in run.fields)}
    ends = {name.rpartition(".")[2] for name in stored}
    asked = {name: "input" for name in run.features if name not in ends}
    return {name: version or "column" for name, version in stored.items()} | asked


SECTIONS: dict[str, Callable[[Run], Facts]] = {
    "run": _fields("model", "status", "version", "decision", "started", "finished", "trigger", "by", "error"),
    "params": lambda run: run.params,
    "metrics": lambda run: run.metrics,
    "intervals": lambda run: run.intervals,
    "segments": lambda run: run.segments,
    "data": _fields("data_fingerprint", "rows_train", "rows_test", "rows_dropped", "data_start", "data_end", "split"),
    "sources": lambda run: {name: f"{rows} rows until {run.history[name]}" for name, rows in run.source_rows.items()},
    "features": _features,
    "packages": lambda run: run.packages,
    "code": lambda run: {**_fields("estimator", "definitions", "git_commit", "machine")(run), **run.modules},
    "seconds": lambda run: run.seconds,
}
"""What is compared, in the order in which it is shown."""
SECTIONS_OF_AMOUNTS = {"metrics", "data", "seconds"}
"""Sections of whose numbers one can be more than another."""


def as_csv(runs: Runs, ids: Sequence[str]) -> Iterator[bytes]:
    """`timestamp, model, parameters, score, model_path` of each run, parameters as JSON."""
    yield _csv_lines([CSV_COLUMNS])
    for some in _batches(ids):
        found = runs.read(some)
        yield _csv_lines((r.started, r.model, orjson.dumps(r.params).decode(), score(r), r.package) for r in found)


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
    schema = pa.schema([(name, _parquet_column(name, []).type) for name in _parquet_fields(fields)])
    sink = io.BytesIO()
    writer = pq.ParquetWriter(sink, schema)
    for some in _batches(ids):
        found = [of for of in runs.hashes(some) if of]
        columns = [_parquet_column(name, [of.get(name, "") for of in found]) for name in schema.names]
        writer.write_table(pa.table(columns, schema=schema))
        yield _taken(sink)
    writer.close()
    yield _taken(sink)


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + RUNS_PER_READ] for start in range(0, len(ids), RUNS_PER_READ))


def _csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _taken(sink: io.BytesIO) -> bytes:
    """What was written since it was called last; the writer counts its position by itself."""
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


def _parquet_fields(fields: Collection[str]) -> list[str]:
    """Every run's fields in the order of their declaration, each group's own by name in its place."""
    single = {name: [name] for name in SINGLE_FIELDS - UNEXPORTED_FIELDS}
    grouped = {name: sorted(field for field in fields if field.startswith(f"{name}.")) for name in FIELD_TYPES}
    return [column for name in FIELD_TYPES for column in single.get(name, grouped[name])]


def _parquet_column(name: str, texts: Sequence[str]) -> pa.Array:
    """A field of runs as they lie in Redis; the empty text is an absent value."""
    match kind_of(name):
        case "number":
            type_ = pa.int64() if FIELD_TYPES.get(name, "").startswith("int") else pa.float64()
            return pa.array([text or None for text in texts], pa.string()).cast(type_)
        case "time":
            return pa.array([times.read(text) if text else None for text in texts], pa.timestamp("us", "UTC"))
        case "list":
            lists = [[str(item) for item in orjson.loads(text or "[]")] for text in texts]
            return pa.array(lists, pa.list_(pa.string()))
        case "text":
            return pa.array([text or None for text in texts], pa.string())
