"""How a call goes to a service and comes back: over HTTP, with its failures as errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from modelmill.errors import InvalidRequest, RequestFailed, Unavailable
from modelmill.settings import Settings

LONG = 600.0
"""Seconds that a bulk call (ingest, apply, training frame) may take, and a service to become ready."""
POLL_SECONDS = 0.1

T = TypeVar("T")
Json = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with how much is done so far, and in all: bytes of an upload, rows of a backfill."""


class Transport:
    """Sends to the services at the addresses in `settings` (default: from the environment).

    Every method raises `RequestFailed` where the service answers with an error, `Unavailable` where it does not answer
    within `timeout` seconds, and `InvalidRequest` for text that cannot be sent.
    """

    def __init__(self, settings: Settings | None = None, *, timeout: float = 10.0) -> None:
        self.settings = settings or Settings.read()
        self.http = httpx.Client(timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def when_ready(self, call: Callable[[], T], *, seconds: float = LONG) -> T:
        """The result of `call`, a call of this client, once the service behind it answers and is ready (neither 503 nor
        429).

        Raises:
            Unavailable, RequestFailed: what `call` raises at the end of `seconds`, and any other error at once.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return call()
            except (Unavailable, RequestFailed) as error:
                passing = isinstance(error, Unavailable) or error.http_status in (429, 503)
                if not passing or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _call(self, method: str, url: str, **request: Any) -> Json:
        response = self._send(method, url, **request)
        try:
            answer: Json = response.json()
        except ValueError:
            raise _failure(response) from None
        return answer

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        try:
            response = self.http.request(method, url, **request)
        except httpx.TransportError as error:
            raise _unanswered(url, error) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidRequest(f"this cannot be sent: {error}") from None
        if not response.is_success:  # a redirect is none of our services' answers
            raise _failure(response)
        return response

    @contextmanager
    def _stream(self, method: str, url: str, **request: Any) -> Iterator[httpx.Response]:
        """An answer that is read as it comes; it may fail as long as it is read."""
        try:
            with self.http.stream(method, url, **request) as response:
                if not response.is_success:
                    response.read()
                    raise _failure(response)
                yield response
        except httpx.TransportError as error:
            raise _unanswered(url, error) from None


def url_of(base: str, *path: str | int) -> str:
    """The URL of a path of segments: none of them can reach out of its place, whatever is in it."""
    segments = (quote(str(one), safe="@") for one in path)
    return "/".join([base, *(one.replace(".", "%2E") if one in (".", "..") else one for one in segments)])


def _unanswered(url: str, error: httpx.TransportError) -> Unavailable:
    return Unavailable(f"{url} did not answer: {error or type(error).__name__}")


def _failure(response: httpx.Response) -> RequestFailed:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):  # not one of our services
        problem = {"detail": f"HTTP status {response.status_code}: {response.text[:200]}"}
    return RequestFailed(response.status_code, problem)
