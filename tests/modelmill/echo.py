"""A small service with what `modelmill.web` gives to all, to be run for real: `python -m tests.modelmill.echo`."""

from __future__ import annotations

import os

from flask import Flask, Response, request

from modelmill.settings import Settings
from modelmill.web import create_app, json_body, reply, serve, spooled_body, streams_body


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

    @app.post("/echo")
    def echo() -> Response:
        """The body again, and which process answered."""
        return reply({"body": json_body(), "process": os.getpid()})

    return app


if __name__ == "__main__":
    serve("tests.modelmill.echo:build", Settings.read(), 8000)
