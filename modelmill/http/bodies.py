"""What requests hold: strict JSON, large bodies, and arguments as pydantic models, which the OpenAPI document shows."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import IO, Annotated, Any, ClassVar, TypeVar, cast, get_origin

import orjson
from flask import Flask, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails
from werkzeug.exceptions import RequestEntityTooLarge as BodyTooLarge
from werkzeug.wsgi import get_input_stream

from modelmill import times
from modelmill.errors import InvalidRequest, MalformedBody, UnsupportedEncoding, did_you_mean, shortened

PIECE = 1024 * 1024
"""Bytes of a large body that are in memory at a time."""

View = TypeVar("View", bound=Callable[..., Any])


def json_body() -> Any:
    """The request's body as strict JSON (no NaN, no Infinity, no name twice in an object), whatever type it claims.

    Raises:
        MalformedBody: saying where the text stops being JSON, or which name is repeated.
    """
    return json_of(request.get_data(), "the body")


def json_of(text: bytes, what: str) -> Any:
    """A text that came with a request, as strict JSON.

    Raises:
        MalformedBody: as `json_body`, of `what`.
    """
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"{what} is not JSON: {error}") from None

    def check(names: list[str]) -> None:
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            times = names.count(twice)
            raise MalformedBody(f"{what} has {twice[:80]!r} {times} times in one object; expected it once")

    if may_repeat_names(text, content):
        names_of_objects([text], check)
    return content


def may_repeat_names(text: bytes, content: Any) -> bool:
    """Whether an object in a JSON text may name something twice, of which `content`, read from it, has the last only.

    It does where the text has more colons than its content: each name has one, and others are in texts that both have.

    Raises:
        MalformedBody: where it is nested so deeply that it could not be written again.
    """
    try:
        colons = orjson.dumps(content).count(b":")
    except orjson.JSONEncodeError:
        raise MalformedBody("the body is not JSON that can be taken: it is nested too deeply") from None
    # An escaped colon is one in the content alone.
    return text.count(b":") != colons or b"\\u003a" in text or b"\\u003A" in text


def names_of_objects(documents: Iterable[bytes], check: Callable[[list[str]], None]) -> None:
    """Call `check` with the names in each object of JSON texts, repeated ones as often as they are there."""

    def each(pairs: list[tuple[str, Any]]) -> None:
        check([name for name, _ in pairs])

    for document in documents:
        json.loads(document, object_pairs_hook=each, parse_int=str)  # str: whatever their length


def json_object() -> dict[str, Any]:
    """The request's body as a JSON object; an empty body counts as an empty object."""
    if not request.get_data():
        return {}
    body = json_body()
    if not isinstance(body, dict):
        raise MalformedBody(f"the body is a JSON {type(body).__name__}; expected an object")
    return body


def streams_body(view: View) -> View:
    """Mark a view that may read a large body with `spooled_body`: nothing is read before it."""
    view.streams_body = True  # type: ignore[attr-defined]
    return view


def spooled_body() -> IO[bytes]:
    """The request's body as an open file without a name, at its beginning; never in memory as a whole.

    Raises:
        werkzeug.exceptions.RequestEntityTooLarge: where it is longer than the service takes.
    """
    limit = (request.max_content_length or 0) - 1
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  whoever reads it closes it
    try:
        while piece := request.stream.read(PIECE):
            file.write(piece)
            if file.tell() > limit:
                raise BodyTooLarge
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def bound_bodies(app: Flask, limit: int) -> None:
    """Refuse bodies over `limit` bytes, also those that come in chunks, which Werkzeug would cut off without a word.

    What is packed is unpacked while it is read, and bounded by the same limit, packed and unpacked.
    """
    app.config["MAX_CONTENT_LENGTH"] = limit + 1

    @app.before_request
    def bound() -> None:
        encoding = request.environ.pop("HTTP_CONTENT_ENCODING", "")
        if encoding.strip().lower() not in ("", "identity"):
            _unpack_body(request.environ, encoding, limit)
        length = request.content_length
        streams = hasattr(app.view_functions.get(request.endpoint or ""), "streams_body")
        if length is None and request.method not in ("GET", "HEAD") and not streams:
            length = len(request.get_data())
        if length is not None and length > limit:
            raise BodyTooLarge


def _unpack_body(environ: dict[str, Any], encoding: str, limit: int) -> None:
    """Make the request's body one of unknown length that is not packed."""
    if encoding.strip().lower() not in (UnsupportedEncoding.TAKEN, "x-gzip"):
        raise UnsupportedEncoding(encoding)
    environ["wsgi.input"] = _Unpacked(get_input_stream(environ, max_content_length=limit + 1))
    environ["wsgi.input_terminated"] = True
    environ.pop("CONTENT_LENGTH", None)


class _Unpacked(io.RawIOBase):
    """What is packed in a stream; never more of it in memory than is read at a time."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._content = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._content.readinto(buffer)
        except (EOFError, OSError, zlib.error) as error:  # cut off, not gzip at all, damaged
            raise MalformedBody(f"the body is not complete gzip: {error}") from None


# --- arguments: what a call takes in its body or query, declared at the route as pydantic models

FLAGS = {"true": True, "1": True, "false": False, "0": False}
MAX_TEXT = 500
"""Letters of a short text, such as who asks for something."""


def _number(value: Any) -> Any:
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19
    return int(value) if digits else value


Text = Annotated[str, Field(max_length=MAX_TEXT, description=f"a text of at most {MAX_TEXT} letters")]
Number = Annotated[int, BeforeValidator(_number)]
"""A whole number, also in digits."""
Flag = Annotated[
    bool,
    BeforeValidator(lambda value: FLAGS.get(value.lower(), value) if isinstance(value, str) else value),
    Field(description="true or false"),
]
"""A truth value, also in letters."""
Switch = Annotated[bool, Field(description="true or false")]
"""One of a JSON body."""
Moment = Annotated[
    datetime | None,
    BeforeValidator(lambda value: None if value is None else times.read(value)),
    WithJsonSchema({"type": ["string", "number", "null"], "description": times.EXPECTED}),
]
"""A time as `modelmill.times` reads it, which may be left out."""


class Arguments(BaseModel):
    """What a call takes in one place of its requests.

    Every field has a description, and so may have the entries and the names of one that holds others: it says what is
    expected, in the document and in the answer to a request that has something else. A validator that raises
    `InvalidRequest` says so itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    place: ClassVar[str]
    """Where they stand, which is also the view's argument."""
    wrong: ClassVar[str] = "field {name!r} is {value}"
    strange: ClassVar[str] = "field {name!r} is not known{known}"


class Body(Arguments):
    """The JSON object that a call takes."""

    place = "body"


class Form(Arguments):
    """The fields and files of a body of type multipart/form-data."""

    place = "form"


class Query(Arguments):
    """The query parameters that a call takes, each once, but any number of times where it is a list."""

    place = "query"
    wrong = "{name}={value}"
    strange = "query parameter {name!r} is not taken here; expected {expected}"


Model = TypeVar("Model", bound=BaseModel)


def describes(form: type[Arguments]) -> Callable[[View], View]:
    """Let the OpenAPI document tell that a view takes `form`, which it reads itself."""

    def decorated(view: View) -> View:
        view.takes = {**getattr(view, "takes", {}), form.place: form}  # type: ignore[attr-defined]
        return view

    return decorated


def takes(form: type[Arguments]) -> Callable[[View], View]:
    """Hand a view what its request has of `form`, checked, as its argument `body`, `form` or `query`.

    A request that is wrong is answered with `InvalidRequest`: its first field that is wrong, the value, and what was
    expected.
    """

    def decorated(view: View) -> View:
        @functools.wraps(view)
        def checked_view(**others: Any) -> Any:
            return view(**{form.place: asked(form)}, **others)

        return describes(form)(cast(View, checked_view))

    return decorated


def asked(form: type[Model]) -> Model:
    """What the request has of `form`.

    Raises:
        InvalidRequest: as `takes` says.
    """
    match form.place:  # type: ignore[attr-defined]
        case "body":
            return checked(form, json_object())
        case "form":
            return checked(form, {**request.form, **request.files})
    lists = {name for name, field in form.model_fields.items() if get_origin(field.annotation) is list}
    query = request.args.to_dict(flat=False)
    return checked(form, {k: v if k in lists or len(v) > 1 else v[0] for k, v in query.items()})


def checked(form: type[Model], given: Any) -> Model:
    """What was `given` as `form`.

    Raises:
        InvalidRequest: as `takes` says.
    """
    try:
        return form.model_validate(given)
    except ValidationError as error:
        raise _invalid(form, given, error.errors(include_url=False)[0]) from None


def _invalid(form: type[BaseModel], given: Any, found: ErrorDetails) -> InvalidRequest:
    field, *entry = map(str, found["loc"])
    fields = form.model_json_schema()["properties"]
    said = form if issubclass(form, Arguments) else Arguments
    if field not in fields:
        strange = said.strange.format(name=field[:80], known=did_you_mean(field, fields), expected=", ".join(fields))
        return InvalidRequest(strange, field=field)
    schema = fields[field]
    entries = schema.get("additionalProperties", {})
    if entry and entry[-1] == "[key]" and (expected := schema["propertyNames"].get("description")):
        return InvalidRequest(f"field {field!r}: name {shortened(found['input'])}; expected {expected}", field=field)
    if entry and isinstance(entries, dict) and "description" in entries:
        wrong = f"{field.removesuffix('s')} {shortened(entry[0])} is {shortened(found['input'])}"
        return InvalidRequest(f"{wrong}; expected {entries['description']}", field=field)
    wrong, value = said.wrong, shortened(given.get(field))
    if found["type"] in ("missing", "too_long"):
        wrong, value = wrong.replace("=", " is "), "missing" if field not in given else f"{len(given[field])} long"
    wrong = wrong.format(name=field, value=value)
    return InvalidRequest(f"{wrong}; expected {schema['description']}", field=field)
