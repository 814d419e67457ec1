"""The bodies of calls: what is said of one that is not what the call takes, and that the document describes them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from pydantic import AfterValidator, Field

from modelmill.http.app import create_app, reply
from modelmill.http.bodies import Body, Flag, Number, Query, Text, takes
from modelmill.settings import Settings
from services.trainer.runs import logged


def lower(name: str) -> str:
    if not name.islower():
        raise ValueError
    return name


class Order(Body):
    book: str = Field(pattern="^[a-z]+$", description="small letters")
    prices: dict[
        Annotated[str, AfterValidator(lower), Field(description="a small word")],
        Annotated[float, Field(allow_inf_nan=False, description="a finite number")],
    ] = Field(default={}, max_length=3, description="at most 3 names with prices")


class Search(Query):
    by: Text = ""
    count: Number = Field(50, ge=1, le=100, description="a whole number from 1 to 100")
    signed: Flag = False
    word: list[str] = Field(default=[], description="words")


@pytest.fixture
def app() -> Flask:
    app = create_app("shop", Settings(), {})

    @app.get("/shelves/<int:number>")
    @takes(Search)
    def search(number: int, query: Search) -> Response:
        """Search a shelf."""
        return reply({"number": number, **query.model_dump()})

    @app.post("/shelves/<shelf>/orders")
    @takes(Order)
    def order(shelf: str, body: Order) -> Response:
        """Order a book."""
        return reply({"shelf": shelf, "book": body.book, "prices": body.prices})

    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_a_view_gets_the_checked_body_and_what_the_path_holds(client: FlaskClient) -> None:
    answer = client.post("/shelves/b/orders", json={"book": "emma", "prices": {"new": 3}})
    assert answer.get_json() == {"shelf": "b", "book": "emma", "prices": {"new": 3.0}}


@pytest.mark.parametrize(
    "body, field, detail",
    [
        ({}, "book", "field 'book' is missing; expected small letters"),
        ({"book": 5}, "book", "field 'book' is 5; expected small letters"),
        ({"book": "E" * 99}, "book", f"field 'book' is '{'E' * 76}...; expected small letters"),
        ({"book": "emma", "boook": 1}, "boook", "field 'boook' is not known; did you mean 'book'?"),
        ({"book": "emma", "prices": [1]}, "prices", "field 'prices' is [1]; expected at most 3 names with prices"),
        ({"book": "emma", "prices": {"a": True}}, "prices", "price 'a' is True; expected a finite number"),
        ({"book": "emma", "prices": {"a": "high"}}, "prices", "price 'a' is 'high'; expected a finite number"),
        ({"book": "emma", "prices": {"A": 1}}, "prices", "field 'prices': name 'A'; expected a small word"),
        (
            {"book": "emma", "prices": dict.fromkeys("abcd", 1)},
            "prices",
            "field 'prices' is 4 long; expected at most 3 names with prices",
        ),
    ],
)
def test_a_body_that_is_wrong_is_answered_with_field_value_and_what_was_expected(
    client: FlaskClient, body: dict[str, Any], field: str, detail: str
) -> None:
    answer = client.post("/shelves/b/orders", json=body)
    assert (answer.status_code, answer.get_json()["detail"], answer.get_json()["field"]) == (422, detail, field)


def test_a_view_gets_the_checked_query(client: FlaskClient) -> None:
    found = client.get("/shelves/3?count=7&signed=True&word=a&word=b").get_json()
    assert found == {"number": 3, "by": "", "count": 7, "signed": True, "word": ["a", "b"]}


@pytest.mark.parametrize(
    "query, detail",
    [
        ("count=0", "count='0'; expected a whole number from 1 to 100"),
        ("count=%C2%B2", "count='²'; expected a whole number from 1 to 100"),
        ("count=1&count=2", "count=['1', '2']; expected a whole number from 1 to 100"),
        ("signed=much", "signed='much'; expected true or false"),
        ("by=" + "x" * 501, f"by='{'x' * 76}...; expected a text of at most 500 letters"),
        ("cuont=1", "query parameter 'cuont' is not taken here; expected by, count, signed, word"),
    ],
)
def test_a_query_that_is_wrong_is_answered_with_parameter_value_and_what_was_expected(
    client: FlaskClient, query: str, detail: str
) -> None:
    answer = client.get(f"/shelves/3?{query}")
    assert (answer.status_code, answer.get_json()["detail"]) == (422, detail)


def test_the_openapi_document_has_the_schemas_of_path_and_query(client: FlaskClient) -> None:
    parameters = client.get("/openapi.json").get_json()["paths"]["/shelves/{number}"]["get"]["parameters"]
    assert [(p["name"], p["in"], p["schema"].get("type")) for p in parameters] == [
        ("number", "path", "integer"),
        ("by", "query", "string"),
        ("count", "query", "integer"),
        ("signed", "query", "boolean"),
        ("word", "query", "array"),
    ]
    assert parameters[2]["schema"]["maximum"] == 100


def test_the_openapi_document_has_the_schema_of_a_body(client: FlaskClient) -> None:
    call = client.get("/openapi.json").get_json()["paths"]["/shelves/{shelf}/orders"]["post"]
    schema = call["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["book"]
    assert schema["properties"]["prices"]["additionalProperties"]["type"] == "number"


@pytest.mark.parametrize("form", [logged.NewRun, logged.RunChange])
def test_everything_in_a_body_says_what_is_expected(form: type[Body]) -> None:
    for schema in form.model_json_schema()["properties"].values():
        parts = [schema, *(schema[part] for part in ("propertyNames", "additionalProperties") if part in schema)]
        assert all("description" in part for part in parts)
