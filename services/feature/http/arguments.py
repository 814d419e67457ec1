"""What several calls take, in a query or a JSON body: each is what it should be, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, get_args
from urllib.parse import parse_qsl

from flask import request
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema
from werkzeug.routing import BaseConverter

from modelmill import times
from modelmill.errors import InvalidRequest, shortened
from modelmill.http.bodies import Body, Query
from services.feature.frames.joins import AsOf


class KeyInPath(BaseConverter):
    """All of a path from here on, with any slashes: a join key, percent-encoded."""

    regex = ".+"
    part_isolating = False


class KeyQuery(Query):
    """The key of an entity, where it does not stand in the path."""

    key: list[str] = Field(default=[], description="a join key, once")


def entity_key(in_path: str | None) -> str:
    """The join key that the request is about: what stands in its path, otherwise the query parameter `key`.

    Raises:
        InvalidRequest: where there is none, more than one, or one that is not UTF-8 (which would be read as another
            one).
    """
    # Latin-1 keeps each byte, so that what is no UTF-8 is seen below.
    query = parse_qsl(request.query_string.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    given = [text for name, text in query if name == "key"]
    if in_path is not None:
        given.append(request.environ["PATH_INFO"])
    if len(given) != 1 or not given[0]:
        raise InvalidRequest(f"the request names {len(given)} keys; expected one, such as ?key=42", keys=len(given))
    try:
        text = given[0].encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the key is not UTF-8, percent-encoded: {error}") from None
    return text if in_path is None else in_path


class Asked(Body):
    """A JSON object of the feature service."""

    wrong = "{name} is {value}"


def _as_told(read: Callable[[Any], Any], expected: str) -> BeforeValidator:
    """Reads a value, which may be null, or says in a query as in a body what it is."""

    def checked(value: Any, info: ValidationInfo) -> Any:
        try:
            return value if value is None else read(value)
        except ValueError:
            wrong = f"{info.field_name} is {shortened(value)}"
            raise InvalidRequest(f"{wrong}; expected {expected}", field=info.field_name) from None

    return BeforeValidator(checked)


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if day.isoformat() != text:  # 20130201, which is no time anywhere
        raise ValueError
    return day


def _mode(value: Any) -> Any:
    if value not in get_args(AsOf):
        raise ValueError
    return value


Moment = Annotated[
    datetime | None,
    _as_told(times.read, times.EXPECTED),
    WithJsonSchema({"type": ["string", "number", "null"], "description": times.EXPECTED}),
]
DAY, MODE = "a day such as 2013-02-01", " or ".join(get_args(AsOf))
Day = Annotated[
    date | None, _as_told(_day, DAY), WithJsonSchema({"type": ["string", "null"], "format": "date", "description": DAY})
]
Mode = Annotated[AsOf, _as_told(_mode, MODE), Field(description=MODE)]
"""By which times rows are visible."""
