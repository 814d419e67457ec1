"""The floor: a Flask app that does nothing, on the server and settings that every Modelmill service has.

python -m benchmarks.hello PORT
"""

from __future__ import annotations

import sys

from flask import Flask

from modelmill.http.app import serve
from modelmill.settings import Settings


def build() -> Flask:
    """Answers any POST to /."""
    app = Flask("hello")

    @app.post("/")
    def hello() -> str:
        return "Hello, World!"

    return app


if __name__ == "__main__":
    serve("benchmarks.hello:build", Settings.read(), int(sys.argv[1]))
