"""The feature service as processes of its own, with a definitions file, a storage and a Redis of the test's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelmill.client import Client
from modelmill.declare.definitions_file import load
from modelmill.settings import Settings
from modelmill.storage import Storage
from services.feature.store import history
from tests.conftest import RedisServer
from tests.processes import Server


@dataclass
class Service:
    """`python -m services.feature.main` over `folder/mill.py` and `folder/storage`."""

    folder: Path
    redis: RedisServer
    workers: int = 1
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        settings = {
            "MODELMILL_REDIS_URL": self.redis.url,
            "MODELMILL_STORAGE_URL": f"file://{self.folder}/storage",
            "MODELMILL_DEFINITIONS": str(self.mill),
            "MODELMILL_WORKERS": str(self.workers),
        }
        self.server = Server(["-m", "services.feature.main"], settings, self.folder / "feature.log")

    @property
    def mill(self) -> Path:
        return self.folder / "mill.py"

    @property
    def storage(self) -> Storage:
        return Storage(f"file://{self.folder}/storage")

    @property
    def log(self) -> str:
        return self.server.log.read_text()

    def start(self) -> None:
        self.server.start()
        self.server.until_ready()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client over connections of its own, which reach any of the worker processes."""
        with Client(Settings(feature_url=self.server.url, redis_url=self.redis.url)) as client:
            yield client

    def ingest(self, *rows: Mapping[str, Any]) -> None:
        with self.client() as client:
            client.ingest("users", rows)

    def features(self, key: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.entity("user", key)["features"]
        return found

    def history(self, source: str) -> pa.Table:
        """All rows of a source, read from its files."""
        definitions = load(self.mill)
        schema = history.schema(definitions, definitions.source(source))
        return history.read(self.storage, schema, source, schema.names)
