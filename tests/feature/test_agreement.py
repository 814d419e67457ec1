"""Whatever is ingested: lookups, explanations, training frames, predictions and the audit say what a few lines of plain
Python say, which know nothing of columns, tiles and files.

Sources, features, batches and what happens between them are generated; all goes through the HTTP applications.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from modelmill.settings import Settings
from modelmill.state import keys
from modelmill.storage import Storage
from modelmill.windows import FUNCTIONS
from services.feature.app import feature_app
from services.feature.definitions.catalogue import Catalogue
from services.feature.rows.schema import ARROW, TIME
from services.feature.upkeep import rebuild
from services.feature.upkeep.compaction import compact
from tests.feature import brute_force
from tests.feature.brute_force import NUMERIC, VALUES
from tests.feature.conftest import Room
from tests.feature.serving import Serving, publish

KEYS = ["a", "b:é c", "/../d"]
MINUTES = [0.5, 1.5, 2.5, 30.5, 61.5, 119.5, 1500.5]
"""How long ago rows are of: between the edges of windows and of what is too old, since a test takes its time."""
ROW_FUNCTIONS: dict[str, list[tuple[str, str]]] = {
    "float": [("float", "row[c] * 2"), ("float", "1 / row[c]"), ("str", "repr(row[c])"), ("bool", "row[c] is None")],
    "int": [("int", "row[c] % 1000"), ("int", "(row[c] or 0) * 7"), ("float", "row[c] / 3"), ("str", "str(row[c])")],
    "bool": [("bool", "not row[c]"), ("int", "int(row[c])"), ("str", "exit() if row[c] is None else 'there'")],
    "str": [("int", "len(row[c])"), ("bool", "row[c] == 'a'"), ("str", "(row[c] or '') + '!'")],
}
"""Column type to functions of such a column: type and expression."""
BATCH_FUNCTIONS: dict[str, list[tuple[str, str, str]]] = {
    "float": [("float", "rows[c] * 0.5", "row[c] * 0.5"), ("bool", "rows[c].isna()", "row[c] is None")],
    "int": [
        ("int", "rows[c] % 1000", "row[c] % 1000"),
        ("int", "rows[c].where(rows[c] > 0) + 1", "row[c] + 1 if row[c] > 0 else None"),
        ("int", "rows[c].fillna(3)", "3 if row[c] is None else row[c]"),
        ("float", "rows[c].to_numpy() / 4", "row[c] / 4"),
    ],
    "bool": [("bool", "~rows[c]", "not row[c] if row[c] is not None else None")],
    "str": [("int", "rows[c].str.len()", "len(row[c])"), ("str", "rows[c].astype('category')", "row[c]")],
}
"""Column type to batch functions: type, expression of a DataFrame, and of a row."""


@dataclass(frozen=True)
class Computed:
    """A derived feature."""

    name: str
    dtype: str
    code: str
    """The expression in the file."""
    batch: str | None
    value: Callable[[Mapping[str, Any]], Any]
    """Of a row; None where the function fails."""


@dataclass(frozen=True)
class SourceSpec:
    """A source, and what is made of its rows."""

    name: str
    entities: tuple[str, ...]
    timed: bool
    max_age: int | None
    """Minutes."""
    columns: dict[str, tuple[str, bool]]
    """Name to type and whether it may be missing."""
    computed: list[Computed]
    aggregates: list[str]
    """Each the arguments after the source."""


@dataclass(frozen=True)
class Batch:
    """Rows that are sent together: each keys, minutes ago, values."""

    source: SourceSpec
    form: str
    rows: list[tuple[list[str], float, dict[str, Any]]]


@dataclass
class Stored:
    """A row that was accepted, as the oracle remembers it."""

    keys: list[str]
    event: datetime
    ingest: datetime
    values: dict[str, Any]


def code(expression: str, column: str) -> str:
    return expression.replace("[c]", f"[{column!r}]")


def by_hand(expression: str, dtype: str) -> Callable[[Mapping[str, Any]], Any]:
    """The value that a feature has by the letter of its rule."""

    def value(row: Mapping[str, Any]) -> Any:
        try:
            found = eval(expression, {"row": row, "exit": None})
        except Exception:
            return None
        if dtype == "float" and found is not None:
            found = float(found)
        finite = not isinstance(found, float) or found - found == 0
        return found if finite and (dtype != "int" or found is None or abs(found) < 10**18) else None

    return value


@st.composite
def sources(draw: st.DrawFn, name: str, entities: tuple[str, ...]) -> SourceSpec:
    columns = {
        f"{name}_{number}": (draw(st.sampled_from(list(ARROW))), draw(st.booleans()))
        for number in range(draw(st.integers(1, 4)))
    }
    computed, aggregates = [], []
    for column, (dtype, _) in columns.items():
        if len(entities) == 1 and draw(st.booleans()):
            batch = draw(st.sampled_from([None, "pandas", "arrow"]))
            if batch == "pandas":
                kind, text, row = draw(st.sampled_from(BATCH_FUNCTIONS[dtype]))
            elif batch == "arrow":
                kind, text, row = dtype, "rows[c]", "row[c]"
            else:
                kind, text = draw(st.sampled_from(ROW_FUNCTIONS[dtype]))
                row = text
            value = by_hand(code(row, column), kind)
            computed.append(Computed(f"f_{column}", kind, code(text, column), batch, value))
        if draw(st.booleans()):
            function = draw(st.sampled_from([f for f in FUNCTIONS if dtype != "str" or f not in NUMERIC]))
            window, hop = draw(st.sampled_from([("2h", "1m"), ("1h", "1h"), ("2d", "1d"), ("4m", "1m")]))
            after = draw(st.sampled_from(["", ", available_after='1m'"]))
            by = draw(st.sampled_from(entities))
            aggregates.append(
                f"{column!r}, {function!r}, window={window!r}, hop={hop!r}, by={by}, name='a_{column}'{after}"
            )
    return SourceSpec(
        name,
        entities,
        draw(st.booleans()),
        draw(st.sampled_from([None, 1, 60, 1440])) if len(entities) == 1 else None,
        columns,
        computed,
        aggregates,
    )


def values_of(dtype: str, nullable: bool) -> st.SearchStrategy[Any]:
    extremes = {"float": [1.7976931348623157e308, -1e-310], "int": [2**53 + 1, -(10**18) + 1, 0]}.get(dtype, [])
    known = st.one_of(st.sampled_from(extremes), VALUES[dtype]) if extremes else VALUES[dtype]
    return st.none() | known if nullable else known


@st.composite
def batches(draw: st.DrawFn, source: SourceSpec) -> Batch:
    form = draw(st.sampled_from(list(FORMS)))
    row = st.tuples(
        st.lists(st.sampled_from(KEYS), min_size=len(source.entities), max_size=len(source.entities)),
        st.sampled_from(MINUTES),
        st.fixed_dictionaries({name: values_of(*kind) for name, kind in source.columns.items()}),
    )
    return Batch(source, form, draw(st.lists(row, min_size=1, max_size=6)))


@dataclass(frozen=True)
class Story:
    """What is declared, and what happens."""

    sources: list[SourceSpec]
    steps: list[Batch | str]
    begins_whole: bool
    """Whether features and aggregates are declared from the beginning; in the end they are."""

    def fades(self, source: SourceSpec, column: str) -> bool:
        """Whether a column is declared only while features and aggregates are: the first that may be missing."""
        return next((name for name, (_, nullable) in source.columns.items() if nullable), None) == column


@st.composite
def stories(draw: st.DrawFn) -> Story:
    own = draw(st.integers(1, 2))
    found = [draw(sources(f"s{n}", ("user",))) for n in range(own)] + [draw(sources("events", ("user", "item")))]
    happenings = st.sampled_from(
        ["declare", "undeclare", "restart", "other process", "compact", "rebuild", "again", f"forget {KEYS[0]}"]
    )
    steps: list[Batch | str] = []
    for _ in range(draw(st.integers(1, 6))):
        steps += [draw(st.one_of(*map(batches, found))), *draw(st.lists(happenings, max_size=2))]
    return Story(found, steps, draw(st.booleans()))


def definitions(story: Story, *, whole: bool) -> str:
    """The definitions file; unless it is `whole`, of the sources alone, which then lack the columns that fade."""
    lines = ["from modelmill import Aggregate, Entity, Model, Source, feature"]
    lines += ["user = Entity('user', key='user_id')", "item = Entity('item', key='item_id')"]
    features: dict[str, str] = {}
    for source in story.sources:
        columns = {n: kind for n, kind in source.columns.items() if whole or not story.fades(source, n)}
        kinds = {n: dtype + " | None" * nullable for n, (dtype, nullable) in columns.items()}
        kinds |= {} if len(source.entities) == 1 else {"label": "float"}
        typed = ", ".join(f"{name!r}: {kind}" for name, kind in kinds.items())
        one = len(source.entities) == 1
        about = f"entity={source.entities[0]}" if one else f"entities=[{', '.join(source.entities)}]"
        timed = ", event_time='at'" if source.timed else ""
        aged = f", max_age='{source.max_age}m'" if source.max_age else ""
        lines.append(f"{source.name} = Source('{source.name}', {about}{timed}{aged}, columns={{{typed}}})")
        if one:
            features |= {f"user.{name}": dtype for name, (dtype, _) in columns.items()}
        for one_computed in source.computed if whole else ():
            batch = f", batch={one_computed.batch!r}" if one_computed.batch else ""
            argument = "rows" if one_computed.batch else "row"
            lines.append(f"@feature({source.name}, dtype={one_computed.dtype} | None{batch}, max_failed=1)")
            lines.append(f"def {one_computed.name}({argument}):\n    return {one_computed.code}")
            features[f"user.{one_computed.name}"] = one_computed.dtype
        lines += [f"Aggregate({source.name}, {arguments})" for arguments in source.aggregates if whole]
        for arguments in source.aggregates if whole else ():
            entity, name = arguments.split("by=")[1].split(",")[0], arguments.split("name='")[1].split("'")[0]
            features[f"{entity}.{name}"] = "aggregate"
    defaults = {"float": 0.5, "int": 7, "bool": True, "str": "nobody"}
    known = {name: defaults[dtype] for name, dtype in features.items() if dtype != "aggregate"}
    if not whole:
        return "\n".join(lines) + "\n"
    lines.append(
        f"Model('m', entities=[user, item], features={list(features)}, label='label', source=events, estimator=None,"
        f" defaults={known})"
    )
    return "\n".join(lines) + "\n"


# --- how rows are sent


def csv_body(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(schema.names)
    for row in rows:
        values = [row[name] for name in schema.names]
        writer.writerow([str(v).lower() if isinstance(v, bool) else "" if v is None else v for v in values])
    return out.getvalue().encode()


def parquet_body(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), sink)
    body: bytes = sink.getvalue().to_pybytes()
    return body


FORMS: dict[str, tuple[str, Callable[[pa.Schema, Sequence[Mapping[str, Any]]], bytes]]] = {
    "json": ("application/json", lambda _, rows: orjson.dumps(rows)),
    "ndjson": ("application/x-ndjson", lambda _, rows: b"\n".join(map(orjson.dumps, rows))),
    "csv": ("text/csv", csv_body),
    "parquet": ("application/vnd.apache.parquet", parquet_body),
}


# --- what happens, and what the oracle makes of it


@dataclass
class World:
    """The service, and beside it all rows that it has accepted."""

    story: Story
    open_room: Callable[[str | None], Room]
    start: datetime
    room: Room = field(init=False)
    rows: dict[str, list[Stored]] = field(default_factory=dict)
    """Source to its rows in the order of their ingest."""
    last: tuple[Batch, bytes] | None = None
    """What was sent last, unless it cannot be sent again."""
    whole: bool = False
    """Whether features and aggregates are declared."""

    def tell(self) -> None:
        """Let all of the story happen."""
        self.whole = self.story.begins_whole
        self.room = other = self.open_room(definitions(self.story, whole=self.whole))
        for step in [*self.story.steps, "declare"]:
            if isinstance(step, Batch):
                self.send(step)
            elif step in ("declare", "undeclare"):
                self.whole, self.last = step == "declare", None
                self.room.define(definitions(self.story, whole=self.whole))
            elif step == "restart":
                self.room = self.open_room(None)
            elif step == "other process":
                self.room, other = other, self.room
                self.room.catalogue.catch_up()
            elif step == "compact":
                for source in self.story.sources:
                    compact(self.room.catalogue, source.name, fewest=2)
            elif step == "rebuild":
                self.room.redis.delete(*self.room.redis.scan_iter(keys.feature("*", "*")), "no such key")
                rebuild._record_begin(self.room.redis, "")
                rebuild.rebuild(self.room.catalogue)
            elif step == "again" and self.last is not None:
                batch, body = self.last
                answer = self.post(batch, body)
                assert (answer["accepted"], answer["duplicate"]) == (0, len(batch.rows))
            elif step.startswith("forget "):
                self.forget(step.removeprefix("forget "))

    def post(self, batch: Batch, body: bytes) -> dict[str, Any]:
        answer = self.room.post(batch.source.name, body, FORMS[batch.form][0])
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.get_json()
        return found

    def send(self, batch: Batch) -> None:
        source = batch.source
        faded = [name for name in source.columns if not self.whole and self.story.fades(source, name)]
        if batch.form == "csv":
            batch = Batch(source, "csv", [(ids, m, in_csv(source, values)) for ids, m, values in batch.rows])
        columns = [(f"{entity}_id", pa.string()) for entity in source.entities]
        columns += [("at", TIME)] * source.timed
        columns += [(name, ARROW[dtype]) for name, (dtype, _) in source.columns.items() if name not in faded]
        columns += [("label", pa.float64())] * (len(source.entities) > 1)
        schema, rows = pa.schema(columns), []
        for number, (ids, minutes, values) in enumerate(batch.rows):
            at = self.start - timedelta(minutes=minutes)
            row = dict(zip([f"{entity}_id" for entity in source.entities], ids, strict=True))
            row |= {"at": at if batch.form == "parquet" else at.isoformat()} if source.timed else {}
            sent = {name: value for name, value in values.items() if name not in faded}
            rows.append(row | sent | ({"label": float(number)} if len(source.entities) > 1 else {}))
        body = FORMS[batch.form][1](schema, rows)
        answer = self.post(batch, body)
        if answer["duplicate"]:  # by chance the same as an earlier one
            return
        assert answer["accepted"] == len(rows), answer
        ingest = datetime.fromisoformat(answer["ingest_time"])
        self.last = (batch, body) if source.timed else None  # otherwise they would be other rows
        for ids, minutes, values in batch.rows:
            at = self.start - timedelta(minutes=minutes) if source.timed else ingest
            self.rows.setdefault(source.name, []).append(Stored(ids, at, ingest, values | dict.fromkeys(faded)))

    def forget(self, key: str) -> None:
        answer = self.room.http.delete("/entities/user", query_string={"key": key})
        assert answer.status_code == 200, answer.text
        self.last = None
        for source in self.story.sources:
            kept = [row for row in self.rows.get(source.name, []) if row.keys[0] != key]
            self.rows[source.name] = kept

    def expected(self, entity: str, key: str, t: datetime, *, known: bool = False) -> dict[str, Any]:
        """Every feature of an entity at time t."""
        found: dict[str, Any] = {}
        declared = self.room.catalogue.definitions.aggregates.get(entity, {})
        for source in self.story.sources:
            place = source.entities.index(entity) if entity in source.entities else None
            about = [] if place is None else [row for row in self.rows.get(source.name, []) if row.keys[place] == key]
            if source.entities == (entity,):
                found |= self._own(source, about, t, known=known)
            for name, aggregate in declared.items():
                if aggregate.source.name == source.name:
                    rows = [
                        brute_force.Row(key, micros(r.event), micros(r.ingest), r.values[aggregate.reading.column])
                        for r in about
                    ]
                    found[name] = brute_force.brute_force(aggregate.reading, rows, key, micros(t), known=known)
        return found

    def _own(self, source: SourceSpec, about: Sequence[Stored], t: datetime, *, known: bool) -> dict[str, Any]:
        names = [*source.columns, *(one.name for one in source.computed)]
        seen = [row for row in about if row.event <= t and (not known or row.ingest <= t)]
        if not seen:
            return dict.fromkeys(names)
        newest = max(enumerate(seen), key=lambda one: (one[1].event, one[0]))[1]
        if source.max_age is not None and t - newest.event > timedelta(minutes=source.max_age):
            return dict.fromkeys(names)
        computed = {one.name: one.value(newest.values) for one in source.computed}
        return {name: {**newest.values, **computed}[name] for name in names}


def in_csv(source: SourceSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as CSV can tell them, which has no NUL, and one text for what is missing and for what is empty."""

    def told(name: str, value: Any) -> Any:
        text = value.replace("\0", "") if isinstance(value, str) else value
        return text if text != "" else None if source.columns[name][1] else "-"

    return {name: told(name, value) for name, value in values.items()}


def micros(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@contextmanager
def world(story: Story) -> Iterator[World]:
    redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)
    with tempfile.TemporaryDirectory() as folder:
        path, storage = Path(folder) / "mill.py", Storage(f"file://{folder}/storage")

        def open_room(text: str | None) -> Room:
            if text is not None:
                path.write_text(text)
            catalogue = Catalogue(redis, storage, path)
            if text is not None:
                catalogue.apply()
            return Room(catalogue, feature_app(catalogue, Settings()).test_client())

        made = World(story, open_room, datetime.now(UTC))
        made.tell()
        yield made


def spine_frames(room: Room, entity: str, spine: Sequence[tuple[str, datetime]], as_of: str) -> list[dict[str, Any]]:
    names = list(room.catalogue.definitions.features_of(entity))
    if not names:
        return [{} for _ in spine]
    table = pa.table({f"{entity}_id": [key for key, _ in spine], "_at": pa.array([t for _, t in spine], TIME)})
    answer = room.http.post(
        "/training-frames",
        data=parquet_body(table.schema, table.to_pylist()),
        content_type="application/vnd.apache.parquet",
        query_string={"features": ",".join(f"{entity}.{name}" for name in names), "time": "_at", "as_of": as_of},
    )
    assert answer.status_code == 200, answer.text
    rows = pq.read_table(io.BytesIO(answer.data)).to_pylist()
    return [{name: row[f"{entity}.{name}"] for name in names} for row in rows]


def explained(room: Room, entity: str, key: str, **query: str) -> dict[str, Any]:
    answer = room.http.get(f"/entities/{entity}/explain", query_string={"key": key, **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()
    assert all(source["online_equals_history"] is not False for source in found["sources"].values()), found
    return {name: feature["value"] for name, feature in found["features"].items()}


def check(made: World) -> None:
    """Require that all say what the oracle says."""
    room, times = made.room, [made.start - timedelta(minutes=m) for m in (0, 1, 30.5, 60, 120, 1500)]
    ingests = [row.ingest for rows in made.rows.values() for row in rows]
    times += [*ingests, *(ingest - timedelta(microseconds=1) for ingest in ingests[:2])]
    for entity in ("user", "item"):
        spine = [(key, t) for key in [*KEYS, "nobody"] for t in dict.fromkeys(times)]
        for as_of in ("event", "known"):
            for (key, t), row in zip(spine, spine_frames(room, entity, spine, as_of), strict=True):
                assert same(row, made.expected(entity, key, t, known=as_of == "known")), (entity, key, t, as_of)
        for key in KEYS:
            t = times[len(key) % len(times)]
            assert same(explained(room, entity, key, at=t.isoformat()), made.expected(entity, key, t)), (entity, key, t)
            before = datetime.now(UTC)
            answer = room.http.post(f"/entities/{entity}/lookup", json={"keys": [key]}).get_json()["entities"][key]
            found = explained(room, entity, key)
            wanted = made.expected(entity, key, before)
            if repr(wanted) == repr(made.expected(entity, key, datetime.now(UTC))):  # no edge of a window between
                assert same(found, wanted), (entity, key)
                assert answer is None or same(answer["features"], wanted), (entity, key)


def check_model(made: World) -> None:
    """Require of the model's frame that each event has the features of its user and item at its time."""
    answer = made.room.http.post("/training-frames", json={"model": "m"})
    events = made.rows.get("events", [])
    if not events:
        assert answer.status_code == 409
        return
    rows = pq.read_table(io.BytesIO(answer.data)).to_pylist()
    features = made.room.catalogue.definitions.model("m").features

    def wanted(event: Stored) -> list[Any]:
        seen = {f"user.{n}": v for n, v in made.expected("user", event.keys[0], event.event).items()}
        seen |= {f"item.{n}": v for n, v in made.expected("item", event.keys[1], event.event).items()}
        return [micros(event.event), *(seen[name] for name in features)]

    found = [[micros(row["_event_time"]), *(row[name] for name in features)] for row in rows]
    assert sorted(map(repr, found)) == sorted(repr(wanted(event)) for event in events)


def same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    assert {name: repr(value) for name, value in found.items()} == {name: repr(v) for name, v in wanted.items()}
    return True


def predicted(made: World) -> None:
    """Require that predictions were served with what the history says."""
    publish(made.room)
    serving = Serving(made.room)
    serving.predict(*({"user_id": key, "item_id": other} for key in [*KEYS, "nobody"] for other in KEYS[:2]))
    found = made.room.http.post("/audits", json={"model": "m"}).get_json()
    features = len(made.room.catalogue.definitions.model("m").features)
    assert (found["differences"], found["first"]) == (0, [])
    assert (found["values"], found["equal"], found["not_auditable"]) == (8 * features, 8 * features, {})


def agree(story: Story) -> None:
    with world(story) as made:
        check(made)
        check_model(made)
        predicted(made)


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A smaller story is looked for by the slow test alone: that takes minutes."""


@settings(max_examples=10, suppress_health_check=QUIET, phases=WITHOUT_SHRINKING)
@given(stories())
def test_all_that_is_told_of_what_was_ingested_agrees(story: Story) -> None:
    agree(story)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=200, suppress_health_check=QUIET)
@given(stories())
def test_all_that_is_told_agrees_in_many_stories(story: Story) -> None:
    agree(story)
