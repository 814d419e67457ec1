"""Every join key that can be ingested can be looked up, explained and forgotten, and no other is by its name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import orjson
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelmill import cli
from modelmill.cli import system
from modelmill.client import Client
from modelmill.errors import InvalidRequest, RequestFailed
from modelmill.settings import Settings
from services.feature.rows.schema import MAX_KEY_BYTES
from tests.conftest import RedisServer
from tests.feature.conftest import OpenRoom, Room
from tests.feature.processes import Service

MILL = """
from modelmill import Entity, Source
user = Entity("user", key="user_id")
users = Source("users", entity=user, columns={"x": int})
"""
AWKWARD = [
    ".", "..", "...", "/", "//", "/lead", "//lead", "trail/", "a//b", "a/../b", "../b", "./b", "a/./b", "a/b/explain",
    "explain", "/explain", "x/explain", "lookup", "%", "%2F", "%2f", "%2Flead", "%252F", "%ff", "�", "%00", "a%", "?",
    "?x", "a?key=b", "a&key=b", "&", "a=b", "#", "a#b", ";", "a;b", "+", "a+b", " ", " a ", "a  b", "\\", "\\..\\b", "'",
    '"', "[red]", "[/red]", "[/]", "-", "--yes", "*", "user:b", ":", "ü", "u\u0308", "日本/語", "🙂", "\u200b", "\u2028",
    "x" * MAX_KEY_BYTES, "/" * MAX_KEY_BYTES,
]  # fmt: skip
"""Keys that paths, queries, patterns, shells or markup could take for something else."""
LETTERS = st.one_of(st.sampled_from("/.%?#&=+;:\\ \"'[]-@ab2F"), st.characters(exclude_categories=("Cc", "Cs")))
KEYS = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(LETTERS, min_size=1, max_size=12).filter(lambda key: len(key.encode()) <= MAX_KEY_BYTES),
)


def encoded(key: str) -> str:
    """Each byte of a key percent-encoded, so that no client tidies it."""
    return "".join(f"%{byte:02X}" for byte in key.encode())


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room(MILL)


def asked(http: FlaskClient, form: str, key: str, call: str = "") -> Any:
    """The answer about a key, where it stands in the path or in the query."""
    if form == "path":
        return http.get(f"/entities/user/{encoded(key)}{call}").get_json()
    return http.get(f"/entities/user{call}", query_string={"key": key}).get_json()


@pytest.mark.parametrize("form", ["path", "query"])
@given(some=st.sets(KEYS, min_size=20))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_key_is_looked_up_and_explained(form: str, some: set[str], room: Room) -> None:
    room.ingest("users", [{"user_id": key, "x": len(key)} for key in some])
    for key in some:
        if form == "query" or not f"/{key}".endswith("/explain"):
            found, why = asked(room.http, form, key), asked(room.http, form, key, "/explain")
            assert (found["key"], found["features"]) == (key, {"x": len(key)})
            assert (why["key"], why["features"]["x"]["value"]) == (key, len(key))


@given(key=KEYS, form=st.sampled_from(["path", "query"]))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_to_forget_one_key_leaves_all_others(key: str, form: str, room: Room) -> None:
    near = {*AWKWARD, "lead", "b", "a", "trail", key.strip("/"), key.replace("//", "/"), quote(key), key.strip()}
    near = {other for other in near if other and len(other.encode()) <= MAX_KEY_BYTES}
    room.ingest("users", [{"user_id": one, "x": 1} for one in {key, *near}])
    url = f"/entities/user/{encoded(key)}" if form == "path" else f"/entities/user?{urlencode({'key': key})}"
    assert room.http.delete(url, follow_redirects=True).status_code == 200
    stored = {name.removeprefix("feature:user:") for name in room.redis.scan_iter("feature:user:*")}
    assert near - {key} <= stored
    assert key not in stored


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "the request names 0 keys"),
        ("key=", "expected one, such as ?key=42"),
        ("key=a&key=b", "the request names 2 keys"),
        ("key=a&b", "query parameter 'b' is not taken here; expected key"),
        ("key=a&details=1", "query parameter 'details' is not taken here"),
        ("key=%ff", "the key is not UTF-8, percent-encoded"),
        ("key=%ED%A0%80", "the key is not UTF-8, percent-encoded"),
        ("%ff=a", "query parameter '%FF' is not taken here"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_query_that_does_not_name_one_key_is_refused(method: str, query: str, says: str, room: Room) -> None:
    room.ingest("users", [{"user_id": key, "x": 1} for key in ("a", "b", "�", "%FF", "%ff")])
    answer = room.http.open("/entities/user", method=method, query_string=query)
    assert (answer.status_code, says in answer.get_json()["detail"]) == (422, True)


@pytest.mark.parametrize(("key", "query"), [("a", "key=b"), ("\xff", ""), ("a\xed\xa0\x80", "")])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_path_that_does_not_name_one_key_is_refused(method: str, key: str, query: str, room: Room) -> None:
    room.ingest("users", [{"user_id": key, "x": 1} for key in ("a", "b", "�")])
    path = {"PATH_INFO": f"/entities/user/{key}"}  # as a server gives it: each byte as a letter
    assert room.http.open(method=method, query_string=query, environ_overrides=path).status_code == 422


@pytest.fixture
def service(real_redis: RedisServer, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "mill.py").write_text(MILL)
    service = Service(tmp_path, real_redis)
    service.start()
    yield service
    service.server.stop()


def raw(service: Service, method: str, target: str) -> tuple[int, dict[str, Any]]:
    """The answer to a request whose target no client has touched."""
    with socket.create_connection(("127.0.0.1", service.server.port), timeout=10) as connection:
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: feature\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), orjson.loads(body)


@pytest.mark.redis
def test_any_key_goes_through_client_and_server_and_back(service: Service) -> None:
    @given(key=KEYS)
    @example("..")
    @settings(max_examples=30)
    def there_and_gone(key: str) -> None:
        client.ingest("users", [{"user_id": key, "x": 7}])
        assert client.entity("user", key)["key"] == client.explain("user", key)["key"] == key
        assert raw(service, "GET", f"/entities/user?key={encoded(key)}")[1]["key"] == key
        if not key.endswith("explain"):
            assert raw(service, "GET", f"/entities/user/{encoded(key)}")[1]["key"] == key
        assert client.forget("user", key)["counts"]["rows"] == {"users": 1}
        with pytest.raises(RequestFailed, match="no row with this key"):
            client.entity("user", key)

    with service.client() as client:
        there_and_gone()


@pytest.mark.redis
def test_a_path_with_a_leading_slash_never_reaches_the_key_without(service: Service) -> None:
    service.ingest({"user_id": "lead", "x": 1})
    for target in ("/entities/user//lead", "/entities/user/%2Flead", "/entities//user/lead"):
        httpx.delete(f"{service.server.url}{target}", follow_redirects=True)
        raw(service, "DELETE", target)
    assert service.features("lead") == {"x": 1}


@pytest.fixture
def from_shell(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    with service.client() as client:
        monkeypatch.setattr(system, "client", lambda: client)
        yield CliRunner()


@pytest.mark.redis
def test_the_command_line_takes_any_key_without_a_traceback(service: Service, from_shell: CliRunner) -> None:
    def run(*words: str) -> Result:
        return from_shell.invoke(cli.main, words)

    service.ingest(*[{"user_id": key, "x": 7} for key in AWKWARD])
    for key in AWKWARD:
        told = run("features", "--json", "--", "user", key)
        assert orjson.loads(told.stdout)["key"] == key
        assert run("explain", "--", "user", key).exit_code == 0
        assert run("forget", "--yes", "--", "user", key).exit_code == 0
        gone = run("features", "--", "user", key)
        assert (gone.exit_code, type(gone.exception)) == (1, SystemExit)
        assert f"user {key!r} has no features" in gone.stderr


@pytest.mark.parametrize("key", ["\udcff", "a\udcff/b"])
@pytest.mark.parametrize("command", ["features", "explain", "forget"])
def test_a_key_that_is_no_text_is_refused_without_a_traceback(
    command: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "client", lambda: Client(Settings()))
    done = CliRunner().invoke(cli.main, [command, "user", key], input="y\n")
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "this cannot be sent" in done.stderr
    with pytest.raises(InvalidRequest, match="this cannot be sent"):
        Client(Settings()).entity("user", key)
