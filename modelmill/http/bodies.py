"""The bodies of calls as pydantic models: checked before the view sees them, and described in the OpenAPI document."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from flask import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from modelmill.errors import InvalidRequest, did_you_mean, shortened
from modelmill.http.web import json_object


class Body(BaseModel):
    """The JSON object that a call takes.

    Every field has a description, and each that holds others has one for its entries and, where not every name will do,
    one for their names: it says what is expected, in the document and in the answer to a body that has something else.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Form = TypeVar("Form", bound=Body)
View = Callable[..., Response]


def takes(form: type[Form]) -> Callable[[View], View]:
    """Hand a view the request's body as its argument `body`, checked.

    Where it is no such body, the call is answered with `InvalidRequest`: the first field that is wrong, its value, and
    what was expected.
    """

    def decorated(view: View) -> View:
        @functools.wraps(view)
        def checked(**path: str) -> Response:
            try:
                body = form.model_validate(json_object())
            except ValidationError as error:
                raise _invalid(form, error.errors(include_url=False)[0]) from None
            return view(body=body, **path)

        checked.body = form  # type: ignore[attr-defined]  # for `modelmill.http.web.describe`
        return checked

    return decorated


def _invalid(form: type[Body], found: ErrorDetails) -> InvalidRequest:
    field, *entry = map(str, found["loc"])
    fields = form.model_json_schema()["properties"]
    if field not in fields:
        return InvalidRequest(f"field {field!r} is not known{did_you_mean(field, fields)}", field=field)
    schema, value = fields[field], shortened(found["input"])
    if found["type"] in ("missing", "too_long"):
        value = f"{len(found['input'])} long" if found["type"] == "too_long" else "missing"
    if not entry:
        return InvalidRequest(f"field {field!r} is {value}; expected {schema['description']}", field=field)
    if entry[-1] == "[key]":
        expected = schema["propertyNames"]["description"]
        return InvalidRequest(f"field {field!r}: name {value}; expected {expected}", field=field)
    expected, name = schema["additionalProperties"]["description"], shortened(entry[0])
    return InvalidRequest(f"{field.removesuffix('s')} {name} is {value}; expected {expected}", field=field)
