"""The OpenAPI 3.1 description of a service, made from its routes and their docstrings, and a page that shows it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import orjson
from flask import Flask, Response, render_template_string

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{ spec.info.title }}</title><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2833}
h2{margin:2rem 0 .2rem;font:600 1rem ui-monospace,monospace}b{color:#0b6e4f}p{margin:.2rem 0;white-space:pre-line}
a{color:#0b6e4f}</style></head><body><h1>{{ spec.info.title }}</h1>
<p>{{ spec.info.description }} As <a href="/openapi.json">OpenAPI 3.1</a>.</p>
{% for path, methods in spec.paths.items() %}{% for method, call in methods.items() %}
<h2><b>{{ method | upper }}</b> {{ path }}</h2><p>{{ call.summary }}</p><p>{{ call.description }}</p>
{% endfor %}{% endfor %}</body></html>"""


def add_routes(app: Flask, service: str) -> None:
    """Add `/openapi.json` and `/docs` to `app`."""

    @app.get("/openapi.json")
    def openapi() -> Response:
        """This service's calls as OpenAPI 3.1."""
        return Response(orjson.dumps(describe(app, service)), content_type="application/json")

    @app.get("/docs")
    def docs() -> str:
        """This service's calls as a page."""
        return render_template_string(PAGE, spec=describe(app, service))


def describe(app: Flask, service: str) -> dict[str, Any]:
    """The OpenAPI document of all routes of `app`; a view's docstring is its summary and description."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.endpoint == "static":
            continue
        summary, _, description = inspect.cleandoc(app.view_functions[rule.endpoint].__doc__ or "").partition("\n")
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(path, {})[method.lower()] = {
                "operationId": f"{rule.endpoint}_{method.lower()}",
                "summary": summary,
                "description": description.strip(),
                "parameters": [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in re.findall(r"{(\w+)}", path)
                ],
                "responses": {
                    "2XX": {"description": "Done."},
                    "default": {
                        "description": "What was wrong, as RFC 9457 problem details.",
                        "content": {"application/problem+json": {"schema": {"type": "object"}}},
                    },
                },
            }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Modelmill {service}",
            "version": "1",
            "description": f"The HTTP calls of the {service} service.",
        },
        "paths": paths,
    }
