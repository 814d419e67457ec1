"""A small service with what `modelmill.http.app` gives to all, to be run for real: `python -m tests.modelmill.echo`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from flask import Flask, Response, request

from modelmill.errors import Conflict
from modelmill.http.app import create_app, reply, serve, whole
from modelmill.http.bodies import json_body, spooled_body, streams_body
from modelmill.settings import Settings


def build() -> Flask:
    app = create_app("echo", Settings.read(), {})

    @app.post("/length")
    def length() -> Response:
        """The number of bytes in the body."""
        return reply({"bytes": len(request.get_data())})

    @app.post("/spooled")
    @streams_body
    def spooled() -> Response:
        """The number of bytes in the body, which was never in memory as a whole."""
        with spooled_body() as file:
            return reply({"bytes": sum(map(len, file))})

    @app.get("/whole/<int:made>")
    def made(made: int) -> Response:
        """A body of three pieces, of which `made` can be made."""

        def pieces() -> Iterator[bytes]:
            for number in range(3):
                if number == made:
                    raise Conflict(f"piece {number} cannot be made")
                yield bytes(1_000_000)

        return whole(pieces(), "application/octet-stream")

    @app.get("/lost")
    def lost() -> Response:
        """A body whose end cannot be read any more."""
        answer = whole([bytes(3_000_000)], "application/octet-stream")
        answer.response = islice(answer.iter_encoded(), 2)
        return answer

    @app.post("/echo")
    def echo() -> Response:
        """The body again, and which process answered."""
        return reply({"body": json_body(), "process": os.getpid()})

    return app


if __name__ == "__main__":
    serve("tests.modelmill.echo:build", Settings.read(), 8000)
