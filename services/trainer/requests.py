"""What the trainer's calls take: bodies and parameters, checked strictly."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelmill import times
from modelmill.declare.declarations import NAME
from modelmill.errors import InvalidRequest, did_you_mean, shortened

LONGEST_TEXT = 500
MOST_RUNS = 1000


def require_fields(body: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse a body with a field that the call does not take."""
    for name in body:
        if name not in known:
            raise InvalidRequest(f"field {name!r} is not known{did_you_mean(name, known)}", field=name)


def text(body: Mapping[str, Any], name: str) -> str:
    """A field of text, which may be left out."""
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise InvalidRequest(f"field {name!r} is {shortened(value)}; expected a text of at most {LONGEST_TEXT} letters")
    return value


def moment(body: Mapping[str, Any], name: str) -> str | None:
    """A field with a time, which may be left out, as `modelmill.times` reads it."""
    value = body.get(name)
    if value is None:
        return None
    try:
        return times.read(value).isoformat()
    except ValueError:
        raise InvalidRequest(f"field {name!r} is {shortened(value)}; expected {times.EXPECTED}") from None


def span(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The fields `start` and `end`."""
    start, end = moment(body, "start"), moment(body, "end")
    if start and end and datetime.fromisoformat(start) >= datetime.fromisoformat(end):
        raise InvalidRequest(f"field 'start' is {start} and 'end' is {end}; expected the start to be earlier")
    return start, end


def version(body: Mapping[str, Any]) -> int:
    """The field `version`."""
    value = body.get("version")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequest(f"field 'version' is {shortened(value)}; expected a version number such as 3")
    return value


def expected(value: Any) -> int | None:
    """The field `expected`, which may be left out: the version that an alias must name by now, 0 for none."""
    if value is None:
        return None
    given = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise InvalidRequest(f"field 'expected' is {shortened(value)}; expected a version number, or 0 for none")
    return given


def switch(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false, false where it is left out."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"field {name!r} is {shortened(value)}; expected true or false")
    return value


def tags(body: Mapping[str, Any]) -> dict[str, str]:
    """A body of tags: name to value, or to null where the tag is to be taken away."""
    if not body:
        raise InvalidRequest('the body is empty; expected tags such as {"stage": "reviewed"}')
    for name, value in body.items():
        if value is not None and (not isinstance(value, str) or len(value) > LONGEST_TEXT):
            raise InvalidRequest(
                f"tag {name!r} is {shortened(value)}; expected a text of at most {LONGEST_TEXT} letters, or null"
            )
    return {name: value or "" for name, value in body.items()}


def alias(name: str) -> str:
    """The name of an alias."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(f"alias {name!r}: expected letters, digits and _, not starting with a digit")
    return name


def limit(given: str | None) -> int:
    """The parameter `limit`."""
    if given is None:
        return 50
    if not given.isdecimal() or not 1 <= int(given) <= MOST_RUNS:
        raise InvalidRequest(f"limit={given!r}; expected a number from 1 to {MOST_RUNS}")
    return int(given)
