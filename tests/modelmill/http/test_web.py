from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator

import httpx
import pytest
import redis.exceptions
from flask import Flask, Response
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, Gauge

from modelmill.errors import Conflict, ModelmillError, NotFound, TooLarge, Unavailable
from modelmill.http.app import create_app, redis_answers, reply
from modelmill.http.bodies import json_body, json_object, spooled_body, streams_body
from modelmill.local import free_port
from modelmill.settings import Settings
from modelmill.state.connections import connect
from tests.eventually import eventually
from tests.processes import Server

LIMIT = 1000


@pytest.fixture
def app() -> Flask:
    app = create_app("test", Settings(max_body_bytes=LIMIT), {})

    @app.post("/body")
    def body() -> Response:
        """The body again."""
        return reply({"body": json_body()})

    @app.post("/object")
    def an_object() -> Response:
        """The body again, if it is an object."""
        return reply({"body": json_object()})

    @app.post("/spooled")
    @streams_body
    def spooled() -> Response:
        """The body again, from a file."""
        with spooled_body() as file:
            return reply({"body": json.load(file)})

    return app


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


def raising(app: Flask, error: Exception) -> FlaskClient:
    """A client of `app`, whose `/fails` raises `error`."""

    @app.get("/fails")
    def fails() -> Response:
        raise error

    return app.test_client()


@pytest.mark.parametrize(
    "error, status",
    [
        (NotFound("none", model="m"), 404),
        (Conflict("no"), 409),
        (TooLarge("rows", 3, 2), 413),
        (ModelmillError("!"), 500),
    ],
)
def test_an_error_is_a_problem_document(error: ModelmillError, status: int, app: Flask) -> None:
    answer = raising(app, error).get("/fails")
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.json == error.problem()
    assert {"type", "title", "status", "detail"} <= answer.json.keys()


@pytest.mark.parametrize(
    "error", [Unavailable("away"), redis.exceptions.ConnectionError("refused"), redis.exceptions.TimeoutError("slow")]
)
def test_what_is_away_for_the_moment_is_a_503_that_says_when_to_try_again(error: Exception, app: Flask) -> None:
    answer = raising(app, error).get("/fails")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert str(error) in answer.json["detail"]  # type: ignore[index]


def test_a_redis_that_is_away_is_a_503(app: Flask) -> None:
    away = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)
    app.get("/read")(lambda: reply(away.get("key")))
    answer = app.test_client().get("/read")
    assert answer.status_code == 503
    assert "Redis did not answer" in answer.json["detail"]  # type: ignore[index]


def test_an_unexpected_error_is_a_500_without_a_traceback(app: Flask) -> None:
    answer = raising(app, ZeroDivisionError("division by zero")).get("/fails")
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert "unexpected ZeroDivisionError: division by zero" in answer.json["detail"]  # type: ignore[index]
    assert "File " not in answer.text


def test_an_unknown_path_is_a_problem_document(http: FlaskClient) -> None:
    answer = http.get("/nothing")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_a_wrong_method_is_answered_with_the_right_ones(http: FlaskClient) -> None:
    answer = http.get("/body")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "text", ["NaN", "[1, NaN]", '{"a": Infinity}', "-Infinity", "{", "", "nothing", '{"a": 01}', "\x80"]
)
def test_what_is_not_json_is_a_400(text: str, http: FlaskClient) -> None:
    answer = http.post("/body", data=text)
    assert answer.status_code == 400
    assert "the body is not JSON" in answer.json["detail"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (b'{"a": 1, "a": 2}', 2),
        (rb'{"a": 1, "b": 0, "\u0061": 2}', 2),
        (b'[{"x": [{"a": 1, "a": 1, "a": 1}]}]', 3),
        (rb'{"a": 1, "a": ":\u003a"}', 2),
    ],
)
def test_a_name_that_is_twice_in_an_object_is_a_400(text: bytes, times: int, http: FlaskClient) -> None:
    answer = http.post("/body", data=text)
    assert answer.status_code == 400
    assert answer.json["detail"] == f"the body has 'a' {times} times in one object; expected it once"  # type: ignore[index]


@pytest.mark.parametrize("text", [b'[{"a": 1}, {"a": 2}]', b'{"a:": {"a:": ":"}}', rb'{"a": "\u003a"}'])
def test_a_name_may_come_again_in_another_object(text: bytes, http: FlaskClient) -> None:
    assert http.post("/body", data=text).json == {"body": json.loads(text)}


@pytest.mark.parametrize(("depth", "status"), [(200, 200), (300, 400)])
def test_json_that_is_nested_deeper_than_it_could_be_answered_is_a_400(
    depth: int, status: int, http: FlaskClient
) -> None:
    assert http.post("/body", data="[" * depth + "]" * depth).status_code == status


def test_json_is_taken_whatever_content_type_it_claims(http: FlaskClient) -> None:
    answer = http.post("/body", data="[1]", content_type="application/x-www-form-urlencoded")
    assert answer.json == {"body": [1]}


def test_an_empty_body_is_an_empty_object(http: FlaskClient) -> None:
    assert http.post("/object").json == {"body": {}}


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_another_kind_of_json_than_an_object_is_a_400(text: str, http: FlaskClient) -> None:
    answer = http.post("/object", data=text)
    assert answer.status_code == 400
    assert "expected an object" in answer.json["detail"]  # type: ignore[index]


def test_a_body_over_the_limit_is_a_413_that_names_the_setting(http: FlaskClient) -> None:
    answer = http.post("/body", data=b"[" + b"1," * LIMIT + b"1]")
    assert answer.status_code == 413
    assert f"over the limit of {LIMIT}" in answer.json["detail"]  # type: ignore[index]
    assert "MODELMILL_MAX_BODY_BYTES" in answer.json["detail"]  # type: ignore[index]


PACKED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize("route", ["/body", "/spooled"])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP", "identity", ""])
def test_a_body_that_is_packed_with_gzip_is_unpacked(encoding: str, route: str, http: FlaskClient) -> None:
    plain = encoding in ("identity", "")
    body = b"[1,2]" if plain else gzip.compress(b"[1,") + gzip.compress(b"2]")  # gzip's may follow each other
    assert http.post(route, data=body, headers={"Content-Encoding": encoding}).json == {"body": [1, 2]}


@pytest.mark.parametrize("route", ["/body", "/spooled"])
def test_a_body_is_bounded_as_it_is_unpacked(route: str, http: FlaskClient) -> None:
    fits, bomb = (b'"' + b"x" * length + b'"' for length in (LIMIT - 2, 1_000_000))
    assert http.post(route, data=gzip.compress(fits), headers=PACKED).json == {"body": "x" * (LIMIT - 2)}
    answer = http.post(route, data=gzip.compress(bomb, 9)[:LIMIT], headers=PACKED)
    assert answer.status_code == 413
    assert f"over the limit of {LIMIT}" in answer.json["detail"]  # type: ignore[index]


@pytest.mark.parametrize("route", ["/body", "/spooled"])
@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2]",
        gzip.compress(b"[1, 2]")[:-6],
        gzip.compress(b"[1, 2]") + b"more",
        gzip.compress(b"[1]")[:-8] + b"\0" * 8,
    ],
    ids=["plain", "cut off", "followed by something", "with a wrong sum"],
)
def test_a_body_that_is_not_complete_gzip_is_a_400(body: bytes, route: str, http: FlaskClient) -> None:
    answer = http.post(route, data=body, headers=PACKED)
    assert answer.status_code == 400
    assert "the body is not complete gzip: " in answer.json["detail"]  # type: ignore[index]


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "utf-8"])
def test_a_body_that_is_packed_otherwise_is_a_415_that_says_what_is_taken(encoding: str, http: FlaskClient) -> None:
    answer = http.post("/body", data=b"[1]", headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "gzip")
    assert answer.json["detail"] == f"content encoding {encoding!r} is not taken; expected gzip, or none"  # type: ignore[index]


def test_a_live_process_says_so(http: FlaskClient) -> None:
    assert http.get("/livez").json == {"status": "up", "service": "test"}


def test_a_service_with_nothing_missing_is_ready(http: FlaskClient) -> None:
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "ready")  # type: ignore[index]


def test_a_service_that_is_not_ready_names_all_that_is_missing() -> None:
    def no_model() -> None:
        raise Unavailable("no model is loaded")

    away = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)
    checks = {"models": no_model, "redis": redis_answers(away), "fine": lambda: None}
    answer = create_app("test", Settings(), checks).test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json["problems"]["models"] == "no model is loaded"  # type: ignore[index]
    assert answer.json["problems"]["redis"].startswith("Redis did not answer")  # type: ignore[index]
    assert "fine" not in answer.json["problems"]  # type: ignore[index]


def test_a_service_that_is_ready_but_for_a_part_of_it_names_the_part() -> None:
    checks = {"models": lambda: "bad: cannot be loaded", "fine": lambda: ""}
    answer = create_app("test", Settings(), checks).test_client().get("/readyz")
    assert answer.status_code == 200
    assert answer.get_json()["degraded"] == {"models": "bad: cannot be loaded"}


def counted(metrics: str, route: str, **labels: str) -> float:
    """The sum of `modelmill_http_requests_total` over all lines with these labels."""
    wanted = {"route": route, **labels}
    lines = re.findall(r"^modelmill_http_requests_total\{(.*)\} (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for text, value in lines if all(f'{k}="{v}"' in text for k, v in wanted.items()))


def test_requests_are_counted_by_route_method_and_status(http: FlaskClient) -> None:
    before = http.get("/metrics").text
    for text in ("[]", "[]", "{"):
        http.post("/body", data=text)
    after = http.get("/metrics").text
    counts = [
        counted(after, "/body", status=s, method="POST") - counted(before, "/body", status=s) for s in ("200", "400")
    ]
    assert counts == [2, 1]


def test_paths_and_methods_that_a_client_makes_up_are_counted_as_one(http: FlaskClient) -> None:
    before = http.get("/metrics").text
    for method in ("GET", "BREW", "FRY"):
        http.open(f"/nothing/{method}", method=method)
    after = http.get("/metrics").text
    assert counted(after, "unknown", status="404") - counted(before, "unknown", status="404") == 3
    assert "BREW" not in after


def test_a_services_own_collectors_are_asked_at_each_scrape() -> None:
    own = CollectorRegistry()
    Gauge("modelmill_test_mood", "How it feels", registry=own).set(7)

    class Mood:
        def collect(self) -> Iterator[object]:
            yield from own.collect()

    http = create_app("test", Settings(), {}, [Mood()]).test_client()  # type: ignore[list-item]
    assert "modelmill_test_mood 7.0" in http.get("/metrics").text


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with two worker processes."""
    settings = {"MODELMILL_WORKERS": "2", "MODELMILL_MAX_BODY_BYTES": "1000000"}
    server = Server(["-m", "tests.modelmill.echo"], settings, tmp_path_factory.mktemp("echo") / "echo.log")
    server.start()
    try:
        server.until_ready()
        yield server
    finally:
        server.stop()


def test_metrics_are_summed_over_all_worker_processes(echo: Server) -> None:
    answered: list[int] = []

    def both_have_answered() -> bool:
        answered.append(httpx.post(f"{echo.url}/echo", json=[]).json()["process"])  # a new connection each time
        return len(set(answered)) == 2

    eventually(both_have_answered, within=20, saying="both processes answer")
    metrics = [httpx.get(f"{echo.url}/metrics").text for _ in range(8)]
    assert {counted(text, "/echo") for text in metrics} == {len(answered)}


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield bytes(1000)


@pytest.mark.parametrize("route", ["length", "spooled"])
def test_a_body_in_chunks_is_read_whole(route: str, echo: Server) -> None:
    answer = httpx.post(f"{echo.url}/{route}", content=pieces(900_000))
    assert answer.json() == {"bytes": 900_000}


@pytest.mark.parametrize("route", ["length", "spooled"])
@pytest.mark.parametrize("size", [1_001_000, 1_100_000])
def test_a_body_in_chunks_over_the_limit_is_a_413(size: int, route: str, echo: Server) -> None:
    answer = httpx.post(f"{echo.url}/{route}", content=pieces(size))
    assert answer.status_code == 413
    assert "body in bytes: over the limit of 1000000" in answer.json()["detail"]


@pytest.mark.parametrize("route", ["length", "spooled"])
@pytest.mark.parametrize("size", [1_000_001, 50_000_000])
def test_a_body_that_is_too_large_is_answered_and_not_just_cut_off(size: int, route: str, echo: Server) -> None:
    answer = httpx.post(f"{echo.url}/{route}", content=bytes(size))
    assert (answer.status_code, answer.json()["got"]) == (413, size)


def test_a_path_is_never_redirected_to_a_tidier_one(app: Flask) -> None:
    @app.get("/things/<path:name>")
    def thing(name: str) -> Response:
        return reply(name)

    for path in ("/things//a", "//things/a/", "/things/a//b", "/things"):
        assert app.test_client().get(path).status_code in (200, 404)
    assert app.test_client().get("/things/a//b").get_json() == "a//b"


def test_a_call_that_is_not_there_is_told_with_where_they_are_listed(http: FlaskClient) -> None:
    assert (
        http.delete("/body").get_json()["detail"]
        == "there is no call DELETE /body here; GET /docs shows those there are"
    )
    assert (http.delete("/body").status_code, http.get("/bodies").status_code) == (405, 404)


def test_an_answer_in_pieces_comes_whole_with_its_length(echo: Server) -> None:
    answer = httpx.get(f"{echo.url}/whole/3")
    assert (answer.status_code, len(answer.content)) == (200, 3_000_000)
    assert answer.headers["content-length"] == "3000000"


@pytest.mark.parametrize("made", [0, 1, 2])
def test_an_answer_that_cannot_be_made_to_its_end_is_an_error_from_its_beginning(made: int, echo: Server) -> None:
    answer = httpx.get(f"{echo.url}/whole/{made}")
    assert (answer.status_code, answer.json()["detail"]) == (409, f"piece {made} cannot be made")


def test_an_answer_whose_end_is_lost_is_broken_off(echo: Server) -> None:
    with pytest.raises(httpx.RemoteProtocolError), httpx.stream("GET", f"{echo.url}/lost") as answer:
        answer.read()
