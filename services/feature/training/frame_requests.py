"""What a request for a training frame asks for, checked: of a model by a JSON body, of an uploaded spine by a query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, get_args

from modelmill.definitions import Definitions
from modelmill.errors import Conflict, InvalidRequest, UnknownName, did_you_mean
from modelmill.storage import Storage
from services.feature.arguments import flag, moment, query_flag
from services.feature.training.frames import Frame, Wanted, model_frame, spine_frame
from services.feature.training.uploads import uploaded
from services.feature.training.visibility import AsOf

QUERY = ("model", "features", "entities", "time", "as_of", "detail")
"""The query parameters that come with a spine."""


def frame_of_model(storage: Storage, definitions: Definitions, body: Mapping[str, Any]) -> Frame:
    """The frame that `{"model", "definitions", "start", "end", "as_of", "detail"}` asks for.

    Raises:
        UnknownName: for a model that is not declared.
        InvalidRequest: naming any other value that cannot be used.
        Conflict: where the model has no labelled rows, or other definitions are in force than the request insists on.
    """
    if body.get("definitions") not in (None, definitions.fingerprint):
        raise Conflict("other definitions have come into force meanwhile; train again")
    name = body.get("model")
    if not isinstance(name, str):
        raise InvalidRequest(f"model is {name!r}; expected a text")
    detail = flag(body, "detail")
    model = definitions.model(name)
    start, end = moment(body, "start"), moment(body, "end")
    as_of = as_of_mode(body.get("as_of", "event"))
    return model_frame(storage, definitions, model, start=start, end=end, as_of=as_of, detail=detail)


def frame_of_spine(
    storage: Storage, definitions: Definitions, file: IO[bytes], content_type: str, query: Mapping[str, str]
) -> Frame:
    """The uploaded spine in `file` with the features that the query asks for.

    `model=NAME` asks for that model's features; `features=user.f1,f2` for any, plain names being those of
    `entities=user,item`.

    Raises:
        UnknownName: for a model that is not declared.
        InvalidRequest: naming any other value, column or row that cannot be used.
        MalformedBody, TooLarge: as `uploaded`.
    """
    for name in query:
        if name not in QUERY:
            raise InvalidRequest(f"query parameter {name!r} is not taken with a spine{did_you_mean(name, QUERY)}")
    wanted = _wanted(definitions, query, as_of_mode(query.get("as_of", "event")), query_flag(query, "detail"))
    keys = list(dict.fromkeys(definitions.entity(ref.entity).key for ref in (*wanted.refs, *wanted.auxiliary)))
    spine = uploaded(file, content_type, keys=keys, time=query.get("time", "event_time"))
    return spine_frame(storage, definitions, spine, wanted)


@dataclass(frozen=True)
class _Names:
    """Features by name, and the entities that plain names are looked for in."""

    features: list[str]
    entities: list[str]


def _wanted(definitions: Definitions, query: Mapping[str, str], as_of: AsOf, detail: bool) -> Wanted:
    if ("model" in query) == ("features" in query):
        raise InvalidRequest("expected with a spine either model=NAME or features=user.feature_1,user.feature_2")
    if "model" in query:
        return Wanted.by(definitions, definitions.model(query["model"]), as_of, detail=detail)
    names = _names(definitions, query["features"].split(","), query.get("entities"))
    if twice := [name for name in names.features if names.features.count(name) > 1]:
        raise InvalidRequest(f"features: {twice[0]!r} is named twice")
    try:
        for entity in names.entities:
            definitions.entity(entity)
        return Wanted(definitions.resolve(names.entities, names.features), as_of, detail)
    except UnknownName as error:  # part of what is asked, not of the address: 422
        raise InvalidRequest(error.detail, **error.fields) from None
    except ValueError as error:  # an ambiguous name
        raise InvalidRequest(str(error)) from None


def _names(definitions: Definitions, features: list[str], entities: str | None) -> _Names:
    if computed := [name for name in features if name in definitions.request_features]:
        raise InvalidRequest(f"feature {computed[0]!r} is computed from inputs of a model; ask with model=NAME")
    if entities is not None:
        return _Names(features, entities.split(","))
    owners = [name.rpartition(".")[0] for name in features]
    if "" in owners:
        raise InvalidRequest(f"feature {features[owners.index('')]!r}: whose? write user.NAME, or add entities=user")
    return _Names(features, list(dict.fromkeys(owners)))


def as_of_mode(value: Any) -> AsOf:
    """By which times rows are visible.

    Raises:
        InvalidRequest: for anything but `event` and `known`.
    """
    if value not in get_args(AsOf):
        raise InvalidRequest(f"as_of is {value!r}; expected {' or '.join(get_args(AsOf))}")
    found: AsOf = value
    return found
