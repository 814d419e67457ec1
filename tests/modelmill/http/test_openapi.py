from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response

from modelmill.http import openapi
from modelmill.http.app import create_app, reply
from modelmill.settings import Settings


@pytest.fixture
def app() -> Flask:
    app = create_app("shop", Settings(), {})

    @app.get("/shelves/<shelf>/books/<path:title>")
    def book(shelf: str, title: str) -> Response:
        """A book & its <shelf>.

        More about
        it.
        """
        return reply({"shelf": shelf, "title": title})

    @app.route("/books", methods=["GET", "POST"])
    def books() -> Response:
        """All books."""
        return reply([])

    return app


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return found


def test_every_route_with_each_of_its_methods_is_in_the_document(app: Flask, document: dict[str, Any]) -> None:
    declared = {
        (rule.rule.replace("<path:title>", "{title}").replace("<shelf>", "{shelf}"), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint != "static"
    }
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == declared
    assert {("/livez", "GET"), ("/readyz", "GET"), ("/metrics", "GET"), ("/docs", "GET")} < described


def test_a_docstring_is_summary_and_description(document: dict[str, Any]) -> None:
    call = document["paths"]["/shelves/{shelf}/books/{title}"]["get"]
    assert (call["summary"], call["description"]) == ("A book & its <shelf>.", "More about\nit.")


def test_every_part_of_a_path_is_a_parameter(document: dict[str, Any]) -> None:
    call = document["paths"]["/shelves/{shelf}/books/{title}"]["get"]
    assert [(p["name"], p["in"], p["required"]) for p in call["parameters"]] == [
        ("shelf", "path", True),
        ("title", "path", True),
    ]


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [call["operationId"] for methods in document["paths"].values() for call in methods.values()]
    assert len(names) == len(set(names))


def test_the_document_says_what_it_is(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "Modelmill shop"


def test_the_page_shows_every_call_and_escapes_what_it_says(app: Flask) -> None:
    page = app.test_client().get("/docs").text
    assert "/shelves/{shelf}/books/{title}" in page
    assert "A book &amp; its &lt;shelf&gt;." in page


def test_a_route_without_docstring_is_described_by_nothing() -> None:
    app = Flask("bare")
    app.get("/bare")(lambda: "")
    assert openapi.describe(app, "bare")["paths"]["/bare"]["get"]["summary"] == ""
