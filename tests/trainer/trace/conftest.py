"""A real feature service and a trainer in this process, over one Redis and one storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from werkzeug.serving import make_server

from modelmill.settings import Settings
from modelmill.state.registry import Registry
from modelmill.state.runs import Run
from modelmill.storage import Storage
from services.feature.app import feature_app
from services.feature.definitions.catalogue import Catalogue
from services.trainer.job import train
from tests.conftest import USERS_MILL, RedisServer


@dataclass
class House:
    """The two services; definitions are those of the file `mill`."""

    catalogue: Catalogue
    registry: Registry
    storage: Storage
    mill: Path
    url: str

    def define(self, text: str) -> None:
        """Write the definitions file and apply it."""
        self.mill.write_text(text)
        self.catalogue.apply()

    def ingest(self, source: str, rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> None:
        """Send rows to a source, as they would come."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
        answer = httpx.post(
            f"{self.url}/sources/{source}/rows", content=frame.to_csv(index=False), timeout=60,
            headers={"Content-Type": "text/csv"},
        )  # fmt: skip
        assert answer.is_success, answer.text

    def train(self, model: str = "user_target", **asked: Any) -> Run:
        """Train in this process, and return the run."""
        return self.registry.runs.get(train(model, **asked)["run"])


@contextmanager
def served(catalogue: Catalogue) -> Iterator[str]:
    """The feature service's address."""
    server = make_server("127.0.0.1", 0, feature_app(catalogue, Settings()), threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def house(real_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Both services with the users example in force."""
    mill, storage = tmp_path / "mill.py", Storage(f"file://{tmp_path}/storage")
    mill.write_text(USERS_MILL.read_text())
    catalogue = Catalogue(real_redis.client(), storage, mill)
    catalogue.apply()
    with served(catalogue) as url:
        for name, value in {
            "MODELMILL_REDIS_URL": real_redis.url,
            "MODELMILL_FEATURE_URL": url,
            "MODELMILL_STORAGE_URL": storage.url,
            "MODELMILL_DEFINITIONS": str(mill),
        }.items():
            monkeypatch.setenv(name, value)
        yield House(catalogue, Registry(real_redis.client()), storage, mill, url)


def users(rows: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of the users example in which the target follows the features most of the time."""
    random = np.random.default_rng(seed)
    one, two, noise = random.normal(size=(3, rows))
    target = (one + two + 0.5 * noise > 0).astype(int)
    names = [f"user-{seed}-{number}" for number in range(rows)]
    columns = zip(names, one.tolist(), two.tolist(), target.tolist(), strict=True)
    return [dict(zip(("user_id", "feature_1", "feature_2", "target"), row, strict=True)) for row in columns]
