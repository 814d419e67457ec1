"""Fixtures of the feature service's tests: the service in this process, over a fake Redis and a folder."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from modelmill.declare.declarations import Source
from modelmill.settings import Settings
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from services.feature.app import feature_app
from services.feature.definitions.catalogue import Applied, Catalogue
from services.feature.intake.decode import RawRows
from services.feature.intake.ingest import Ingested, ingest
from services.feature.store import history
from tests.conftest import ROOT, USERS_MILL

USERS_CSV = ROOT / "../shared/data/user_data.csv"
ROW = {"user_id": "u", "feature_1": 3.0, "feature_2": -0.5, "target": 1}
"""A row of the users example."""


@pytest.fixture
def users_csv() -> bytes:
    """The article's own file."""
    if not USERS_CSV.exists():
        pytest.skip("the article's file is not here")
    return USERS_CSV.read_bytes()


@dataclass
class Room:
    """One process of the feature service."""

    catalogue: Catalogue
    http: FlaskClient

    @property
    def redis(self) -> Redis:
        return self.catalogue.redis

    def define(self, text: str) -> Applied:
        """Write the definitions file and apply it."""
        self.catalogue.path.write_text(dedent(text))
        return self.catalogue.apply()

    def source(self, name: str) -> Source:
        return self.catalogue.definitions.source(name)

    def post(self, source: str, body: bytes | str, kind: str = "text/csv", **query: str) -> TestResponse:
        """Send rows to a source."""
        return self.http.post(f"/sources/{source}/rows", data=body, content_type=kind, query_string=query)

    def ingest(
        self, source: str, rows: Sequence[Mapping[str, Any]], *, digest: str | None = None, skip_bad: bool = False
    ) -> Ingested:
        """Rows straight into a source, without HTTP; with a `digest` once, otherwise each time."""
        names = dict.fromkeys(name for row in rows for name in row)
        raw = RawRows({name: [row.get(name) for row in rows] for name in names}, range(1, len(rows) + 1))
        return ingest(self.catalogue, source, raw, digest or secrets.token_hex(16), skip_bad=skip_bad)

    def history(self, source: str) -> pa.Table:
        """All rows of a source with all columns in force, in the order of their ingest; features by their names."""
        schema = history.schema(self.catalogue.definitions, self.source(source))
        table = history.read(self.catalogue.storage, schema, source, schema.names)
        return table.rename_columns([name.partition("@")[0] for name in table.column_names])

    def online(self, entity: str, key: str) -> dict[str, str]:
        """What `redis-cli HGETALL` shows of an entity, but features in force by their names."""
        found: dict[str, str] = self.redis.hgetall(f"feature:{entity}:{key}")
        for ref in self.catalogue.definitions.features_of(entity).values():
            found = {
                name.replace(ref.field, ref.name): text.replace(ref.field, ref.name) for name, text in found.items()
            }
        return found

    def told(self, entity: str, key: str) -> list[dict[str, Any]]:
        """What HTTP tells of an entity's features: a lookup, an explanation, and a training frame's row of now."""
        features = list(self.catalogue.definitions.features_of(entity))
        found = self.http.post(f"/entities/{entity}/lookup", json={"keys": [key]}).get_json()["entities"][key]
        explained = self.http.get(f"/entities/{entity}/explain", query_string={"key": key}).get_json()
        spine = pa.table({self.catalogue.definitions.entity(entity).key: [key], "_now": [datetime.now(UTC)]})
        names = ",".join(f"{entity}.{name}" for name in features)
        frame = self.http.post(
            "/training-frames",
            data=parquet_rows(*spine.to_pylist(), schema=spine.schema),
            content_type="application/vnd.apache.parquet",
            query_string={"features": names, "time": "_now"},
        )
        [row] = pq.read_table(io.BytesIO(frame.data)).to_pylist()
        assert all(one["online_equals_history"] for one in explained["sources"].values()), explained
        return [
            {name: found["features"][name] if found else None for name in features},
            {name: explained["features"][name]["value"] for name in features},
            {name: row[f"{entity}.{name}"] for name in features},
        ]


OpenRoom = Callable[..., Room]


@pytest.fixture
def open_room(tmp_path: Path, storage: Storage, fake_redis: Redis) -> OpenRoom:
    """Opens a process of the feature service over one storage and definitions file; `text` is applied."""

    def open_it(text: str | None = None, redis: Redis = fake_redis) -> Room:
        path = tmp_path / "mill.py"
        if text is not None:
            path.write_text(dedent(text))
        catalogue = Catalogue(redis, storage, path)
        if text is not None:
            catalogue.apply()
        return Room(catalogue, feature_app(catalogue, Settings()).test_client())

    return open_it


@pytest.fixture
def users(open_room: OpenRoom) -> Room:
    """The users example."""
    return open_room(USERS_MILL.read_text())


def json_rows(*rows: Mapping[str, Any]) -> bytes:
    return orjson.dumps(list(rows))


def ndjson_rows(*rows: Mapping[str, Any]) -> bytes:
    return b"\n".join(map(orjson.dumps, rows))


def csv_rows(*rows: Mapping[str, Any]) -> bytes:
    lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def parquet_rows(*rows: Mapping[str, Any], schema: pa.Schema | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), sink)
    body: bytes = sink.getvalue().to_pybytes()
    return body


FORMATS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "csv": ("text/csv", csv_rows),
    "json": ("application/json", json_rows),
    "ndjson": ("application/x-ndjson", ndjson_rows),
    "parquet": ("application/vnd.apache.parquet", parquet_rows),
}
"""Format to its content type and to what writes rows in it."""


def metric(http: FlaskClient, line: str) -> float:
    """The value of one line of `/metrics`, or 0."""
    lines = http.get("/metrics").text.splitlines()
    return next((float(text.split()[-1]) for text in lines if text.startswith(line)), 0.0)
