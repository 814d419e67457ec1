"""Values that several calls take, in a query or a JSON body: each is what it should be, or is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from flask import request
from werkzeug.routing import BaseConverter

from modelmill import times
from modelmill.errors import InvalidRequest

FLAGS = {"true": True, "1": True, "false": False, "0": False}


class KeyInPath(BaseConverter):
    """All of a path from here on, with any slashes: a join key, percent-encoded."""

    regex = ".+"
    part_isolating = False


def entity_key(in_path: str | None, *others: str) -> str:
    """The join key that the request is about: what stands in its path, otherwise the query parameter `key`.

    Raises:
        InvalidRequest: where there is none, more than one, one that is not UTF-8 (which would be read as another one),
            or a query parameter that is neither `key` nor one of `others`, such as what follows on a bare `&` in a key.
    """
    # Latin-1 keeps each byte, so that what is no UTF-8 is seen below.
    query = parse_qsl(request.query_string.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    names = ["key", *others]
    if strange := [name for name, _ in query if name not in names]:
        raise InvalidRequest(f"query parameter {strange[0][:80]!r} is not taken here; expected {', '.join(names)}")
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


def flag(body: Mapping[str, Any], name: str) -> bool:
    """The truth value under `name` of a JSON body, false where there is none.

    Raises:
        InvalidRequest: for anything else.
    """
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} is {value!r}; expected true or false")
    return value


def query_flag(query: Mapping[str, str], name: str) -> bool:
    """The truth value of a query parameter, false where there is none.

    Raises:
        InvalidRequest: for anything else.
    """
    value = FLAGS.get(text := query.get(name, "false").lower())
    if value is None:
        raise InvalidRequest(f"{name}={text!r}; expected true or false")
    return value


def moment(body: Mapping[str, Any], name: str) -> datetime | None:
    """The time under `name`, as `modelmill.times` reads it; None where there is none.

    Raises:
        InvalidRequest: for anything else.
    """
    value = body.get(name)
    if value is None:
        return None
    try:
        return times.read(value)
    except ValueError:
        raise InvalidRequest(f"{name} is {repr(value)[:80]}; expected {times.EXPECTED}") from None
