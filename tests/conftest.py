"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fakeredis
import pytest
from hypothesis import settings

from modelmill import local
from modelmill.state.connections import Redis, connect
from modelmill.storage import Storage
from tests.eventually import eventually

settings.register_profile("modelmill", deadline=None)  # machines that run tests may be busy
settings.load_profile("modelmill")

ROOT = Path(__file__).parent.parent
USERS_MILL = ROOT / "examples" / "users" / "mill.py"


@pytest.fixture
def fake_redis() -> Redis:
    """An in-memory twin of Redis that decodes to text, empty for each test."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)


@dataclass
class RedisServer:
    """A real redis-server of the test's own, on a free port, with an append-only file."""

    folder: Path
    port: int = field(default_factory=local.free_port)
    process: subprocess.Popen[bytes] | None = None
    clients: list[Redis] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, *, text: bool = True) -> Redis:
        """A new client, closed with the server at the test's end."""
        client = connect(self.url, timeout=5, text=text)
        self.clients.append(client)
        return client

    def start(self) -> None:
        with (self.folder / "redis.log").open("ab") as log:
            command = local.redis_command(self.folder, self.port)
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        client = self.client()
        eventually(lambda: client.ping(), within=10, saying="redis-server answers")

    def stop(self, *, kill: bool = False) -> None:
        """Ask it to end, or with `kill` end it as a crash would (SIGKILL)."""
        assert self.process is not None
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(timeout=10)


@pytest.fixture
def real_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A real redis-server that the test may kill and start again; use with `@pytest.mark.redis`."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    for client in server.clients:
        client.connection_pool.disconnect()
    if server.process is not None and server.process.poll() is None:
        server.stop()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """An empty storage in a folder of the test's own."""
    return Storage(f"file://{tmp_path}/storage")
