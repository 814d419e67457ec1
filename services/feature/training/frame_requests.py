"""What a request for a training frame asks for, checked: of a model by a JSON body, of an uploaded spine by a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, get_args

from modelmill.declare import applied
from modelmill.declare.definitions import Definitions, FeatureRef, sources_of
from modelmill.errors import Conflict, InvalidRequest, UnknownName, did_you_mean
from modelmill.state.connections import Redis
from modelmill.storage import Storage
from services.feature.arguments import flag, moment, query_flag
from services.feature.intake.checks import last_time
from services.feature.store import positions
from services.feature.training.frames import Frame, Wanted, model_frame, spine_frame
from services.feature.training.uploads import uploaded
from services.feature.training.visibility import AsOf

QUERY = ("model", "features", "entities", "time", "as_of", "detail")
"""The query parameters that come with a spine."""


def frame_of_model(redis: Redis, storage: Storage, in_force: Definitions, body: Mapping[str, Any]) -> Frame:
    """The frame that `{"model", "definitions", "start", "end", "as_of", "detail", "known_until"}` asks for.

    Raises:
        UnknownName: for a model that is not declared, and for definitions that were never applied.
        InvalidRequest: naming any other value that cannot be used.
        Conflict: where the model has no labelled rows, or other definitions are in force than the request insists on.
    """
    definitions = _definitions(redis, in_force, body)
    name = body.get("model")
    if not isinstance(name, str):
        raise InvalidRequest(f"model is {name!r}; expected a text")
    detail = flag(body, "detail")
    model = definitions.model(name)
    start, end = moment(body, "start"), moment(body, "end")
    as_of = as_of_mode(body.get("as_of", "event"))
    sources = sources_of(definitions, model)
    at = positions.asked(body.get("known_until"), sources) or positions.newest(redis, storage, sources)
    return model_frame(storage, definitions, model, start=start, end=end, as_of=as_of, detail=detail, at=at)


def _definitions(redis: Redis, in_force: Definitions, body: Mapping[str, Any]) -> Definitions:
    """Those in force, or, for a frame of a former time, those that the request names."""
    wanted = body.get("definitions")
    if wanted in (None, in_force.fingerprint):
        return in_force
    if body.get("known_until") is None:
        raise Conflict("other definitions have come into force meanwhile; train again")
    return applied.load(redis, str(wanted))


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
    last = last_moment(definitions, [*wanted.refs, *wanted.auxiliary])
    spine = uploaded(file, content_type, keys=keys, time=query.get("time", "event_time"), last=last)
    return spine_frame(storage, definitions, spine, wanted)


def last_moment(definitions: Definitions, refs: Iterable[FeatureRef]) -> datetime | None:
    """The latest time that may be asked what it sees of features; None where there are none.

    It is the latest that a row of any of their sources may have now. Rows that a later one will see can still come, and
    meanwhile it would see the newest of all, which in a mistyped year looks like the past and is a leak of the future.
    """
    allowed = [definitions.source(ref.source).max_future for ref in refs]
    return last_time(datetime.now(UTC), max(allowed)) if allowed else None


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
