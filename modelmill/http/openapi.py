"""The OpenAPI 3.1 description of a service, made from its routes with their docstrings and arguments, and a page."""

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


PART = re.compile(r"<(?:(\w+):)?(\w+)>")
PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details; errors about a value name its `field` or more in fields of their own.",
    "properties": {
        "type": {"type": "string", "description": "a URN that names the kind of error"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was wrong and what was expected, as a sentence"},
    },
    "required": ["type", "title", "status", "detail"],
}
TYPES = {"int": {"type": "integer", "minimum": 0}}
"""Converter in a route to the schema of that part of the path; other parts are texts."""
BODIES = {"body": "application/json", "form": "multipart/form-data"}


def describe(app: Flask, service: str) -> dict[str, Any]:
    """The OpenAPI document of all routes of `app`: a view's docstring is its summary and description."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.endpoint == "static":
            continue
        view = app.view_functions[rule.endpoint]
        summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n")
        schemas = {place: form.model_json_schema() for place, form in getattr(view, "takes", {}).items()}
        body = {BODIES[place]: {"schema": schema} for place, schema in schemas.items() if place in BODIES}
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(PART.sub(r"{\2}", rule.rule), {})[method.lower()] = {
                "operationId": f"{rule.endpoint}_{method.lower()}",
                "summary": summary,
                "description": description.strip(),
                "parameters": [*_in_path(rule.rule), *_in_query(schemas.get("query", {}))],
                **({"requestBody": {"content": body}} if body else {}),
                "responses": {
                    "2XX": {"description": "Done."},
                    "default": {
                        "description": "What was wrong.",
                        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
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
        "components": {"schemas": {"Problem": PROBLEM}},
    }


def _in_path(rule: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": TYPES.get(kind, {"type": "string"})}
        for kind, name in PART.findall(rule)
    ]


def _in_query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": value}
        for name, value in schema.get("properties", {}).items()
    ]
