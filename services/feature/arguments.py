"""Values that several calls take, in a query or a JSON body: each is what it should be, or is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modelmill.errors import InvalidRequest

FLAGS = {"true": True, "1": True, "false": False, "0": False}


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
    """The time under `name`, in UTC where it has no offset; None where there is none.

    Raises:
        InvalidRequest: for anything but an ISO 8601 time.
    """
    value = body.get(name)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{name} is {value!r}; expected a time such as 2013-02-01T00:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
