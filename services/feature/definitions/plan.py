"""What another definitions file would change of what is registered, and a trial of its functions on a few rows.

The catalogue in Redis is a few hashes: `entity:{name}`, `source:{name}`, `features:{entity}` and `model:{name}`.
`describe` writes a definitions file as exactly these hashes, so that a plan is a comparison of dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import Any

import pyarrow as pa

from modelmill import times
from modelmill.columns.types import Column, checked, let_stop
from modelmill.declare import splits
from modelmill.declare.declarations import Feature, Source
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef
from modelmill.state import bus, keys
from modelmill.state.connections import Redis
from modelmill.state.events import DefinitionsApplied
from modelmill.storage import Storage
from modelmill.times import utc_now
from services.feature.rows.derive import derive
from services.feature.rows.schema import ARROW
from services.feature.store import history
from services.feature.store.backfill import inputs_of

FIXED_FIELDS = ("key", "entities", "event_time")
"""Fields of an entity or a source that may not change while rows of it are stored."""

NAMES = {kind: dtype for dtype, kind in ARROW.items()}

Hashes = dict[str, dict[str, str]]
"""Redis key to the fields of its hash."""


@dataclass(frozen=True)
class Plan:
    """What applying the definitions would change, a sentence each, and the reasons why it cannot be done."""

    changes: list[str]
    refusals: list[str]
    warnings: list[str] = field(default_factory=list)
    """What works, but costs more than one may expect."""


def describe(definitions: Definitions) -> Hashes:
    """The definitions as the hashes that register them."""
    hashes: Hashes = {}
    for entity in definitions.entities.values():
        hashes[keys.entity(entity.name)] = {"key": entity.key}
        hashes[keys.features(entity.name)] = {
            name: " ".join([str(ref.column), ref.source, *_origin(definitions, ref)])
            for name, ref in definitions.features_of(entity.name).items()
        }
    for source in definitions.sources.values():
        hashes[keys.source(source.name)] = {
            "entities": " ".join(entity.name for entity in source.entities),
            "event_time": source.event_time or "",
            **{f"column.{name}": str(column) for name, column in source.columns.items()},
            **{f"constraints.{name}": str(c.constraints) for name, c in source.columns.items() if c.constraints},
            **_described(source),
        }
    if definitions.request_features:
        hashes[keys.REQUEST_FEATURES] = {
            name: f"{feature.column} {feature.version} of {', '.join(feature.needs)}"
            for name, feature in definitions.request_features.items()
        }
    for model in definitions.models.values():
        hashes[keys.model(model.name)] = {
            "entities": " ".join(entity.name for entity in model.entities),
            "features": " ".join(model.features),
            "inputs": " ".join(f"{name}:{column}" for name, column in model.inputs.items()),
            "label": model.label,
            "source": definitions.label_source(model).name,
            "metric": " ".join(metric.name for metric in model.metrics),
            "segments": " ".join(model.segments),
            "split": splits.described(model.split),
            "search": str(model.search),
            "promote": model.promote,
            "gates": "; ".join(map(str, model.gates)),
            "keep": str(model.keep),
            "train": "; ".join(str(schedule) for schedule in model.train),
        }
    return hashes


def _origin(definitions: Definitions, ref: FeatureRef) -> list[str]:
    """What a feature is made by, beside its source: an aggregate's reading, or the version of a function."""
    if ref.aggregate is not None:
        return [str(ref.aggregate)]
    derived = definitions.features[ref.source].get(ref.column.name)
    return [derived.version] if derived else []


def _described(source: Source) -> dict[str, str]:
    """What a source declares beside its columns, where it does."""
    declared = {
        "max_age": times.duration_text(source.max_age) if source.max_age else "",
        "max_future": times.duration_text(source.max_future) if source.event_time else "",
        "expect": str(source.expect),
        "description": source.about.description,
        "owner": source.about.owner,
        "tags": " ".join(source.about.tags),
        **{f"description.{name}": column.description for name, column in source.columns.items()},
    }
    return {name: text for name, text in declared.items() if text}


def registered(redis: Redis) -> Hashes:
    """The hashes that are registered now."""
    entities, sources, models = (sorted(redis.smembers(s)) for s in (keys.ENTITIES, keys.SOURCES, keys.MODELS))
    wanted = [
        *(key for entity in entities for key in (keys.entity(entity), keys.features(entity))),
        *(keys.source(name) for name in sources),
        *(keys.model(name) for name in models),
        keys.REQUEST_FEATURES,
    ]
    with redis.pipeline(transaction=False) as pipe:
        for key in wanted:
            pipe.hgetall(key)
        return {key: found for key, found in zip(wanted, pipe.execute(), strict=True) if found}


def plan(now: Hashes, declared: Hashes, with_rows: set[str], served: Mapping[str, str]) -> Plan:
    """Compare what is registered with what is declared.

    Args:
        with_rows: the sources that have history.
        served: column, as `users.feature_1`, to a live version that is served from it.
    """
    changes, refusals = [], []
    guarded = {keys.source(name) for name in with_rows} & now.keys()
    if guarded:
        guarded |= {key for key in now if key.startswith(keys.entity(""))}
    for key in sorted(now.keys() | declared.keys()):
        before, after = now.get(key, {}), declared.get(key, {})
        for name in sorted(before.keys() | after.keys()):
            change = _change(key, name, before.get(name), after.get(name))
            if change is None:
                continue
            changes.append(change)
            reason = _refusal(name, before.get(name), after.get(name)) if key in guarded and after else None
            if name not in after and (version := served.get(_column(key, name))):
                reason = f"{version} is served from it; keep it until no alias needs that version"
            if reason:
                refusals.append(f"{change}: {reason}")
    return Plan(changes, refusals)


def _column(key: str, name: str) -> str:
    """A source's column as a version names it, of the field `name` of the hash `key`."""
    return f"{key.removeprefix(keys.source(''))}.{name.removeprefix('column.')}"


def _change(key: str, name: str, before: str | None, after: str | None) -> str | None:
    if before == after:
        return None
    if before is None:
        return f"{key} {name}: added ({after or 'none'})"
    return f"{key} {name}: removed" if after is None else f"{key} {name}: {before or 'none'} -> {after or 'none'}"


def _refusal(name: str, before: str | None, after: str | None) -> str | None:
    """Why stored rows do not allow this change, and the way out."""
    if name in FIXED_FIELDS and before is not None:
        return "rows are stored under it; declare a new source instead"
    if not name.startswith("column."):
        return None
    if before is None and after is not None and not after.endswith("?"):
        return f"stored rows have no value for it; declare it as {after} | None"
    if before is not None and after is not None and before.rstrip("?") != after.rstrip("?"):
        return "stored values have the former type; declare a new column instead"
    return None


def contradictions(storage: Storage, source: Source, now: Mapping[str, str]) -> list[str]:
    """Where stored rows are not what `source` declares anew, which `now`, its registered hash, does not tell, and the
    way out: they were stored when it, or a column, was declared before."""
    added = [column for column in source.columns.values() if f"column.{column.name}" not in now]
    if now and not added:
        return []
    found: dict[str, str] = {}
    for name in history.names(storage, source.name):
        schema = history.stored_schema(storage, name)
        former = (schema.metadata or {}).get(history.ABOUT, b"").decode()
        if former and former != history.about(source):
            found["about"] = (
                f"{keys.source(source.name)}: added ({history.about(source)}): rows of {former} are stored under it;"
                " declare a new source instead"
            )
        for column in added:
            stored = schema.field(column.name).type if column.name in schema.names else ARROW[column.dtype]
            if stored != ARROW[column.dtype]:
                found[column.name] = (
                    f"{keys.source(source.name)} column.{column.name}: added ({column}): values of a former column of"
                    f" this name are stored, as {NAMES[stored]}; declare it under another name"
                )
    return list(found.values())


def register(redis: Redis, definitions: Definitions, changes: list[str]) -> None:
    declared = describe(definitions)
    with redis.pipeline() as pipe:
        gone = [key for key in registered(redis) if key not in declared]
        if gone:
            pipe.delete(*gone)
        for key, fields in declared.items():
            pipe.delete(key)
            if fields:
                pipe.hset(key, mapping=fields)
        for names, members in ((keys.ENTITIES, definitions.entities), (keys.SOURCES, definitions.sources)):
            pipe.delete(names)
            if members:
                pipe.sadd(names, *members)
        if definitions.models:
            pipe.sadd(keys.MODELS, *definitions.models)
        pipe.hset(
            keys.DEFINITIONS,
            mapping={"fingerprint": definitions.fingerprint, "path": str(definitions.path), "applied": utc_now()},
        )
        bus.append(pipe, DefinitionsApplied(source="feature", fingerprint=definitions.fingerprint, changes=changes))
        pipe.execute()


# --- a feature function is tried out on a few rows before it is put in force.
#
# What is looked at: the type of its values, whether it says the same twice, and a batch against single rows.

TRIAL_ROWS = 32
"""On which a function is tried out."""
SHOWN_ROW = 200
"""Characters of a row that are shown."""
FAILURE = "nothing, since it fails,"
MADE_UP: dict[str, list[Any]] = {
    "float": [0.5, 1.0, -2.25, 1e6, 0.0],
    "int": [1, 0, -3, 1000, 2**53 + 1, 7],
    "bool": [True, False],
    "str": ["a", "b", "Ä b", "", "2013-01-31"],
}


def made_up_rows(source: Source) -> pa.Table:
    """Rows as a source may get them: values of each column's type, and some missing where they may be."""
    columns = {entity.key: pa.array([f"key-{i}" for i in range(TRIAL_ROWS)]) for entity in source.entities}
    return pa.table(columns | {name: _made_up(column) for name, column in source.columns.items()})


def stored_rows(storage: Storage, source: Source) -> pa.Table:
    """Some of the newest rows of a source; none where it has none."""

    def newest(names: Sequence[str]) -> pa.Table:
        table = history.read_whole(storage, names[-1]) if names else history.schema_of_rows(source).empty_table()
        return inputs_of(table.slice(max(0, table.num_rows - TRIAL_ROWS)), source)

    return history.reading(storage, source.name, newest)


def _made_up(column: Column) -> pa.Array:
    values = MADE_UP[column.dtype] + ([None] if column.nullable else [])
    return pa.array(list(islice(cycle(values), TRIAL_ROWS)), ARROW[column.dtype])


def try_out(feature: Feature, rows: pa.Table) -> str | None:
    """Why `feature` cannot be put in force, or None.

    A function may fail on some rows; it is refused if it fails on all of them by returning what its dtype is not. It
    is refused if it answers otherwise when it is asked again, and a batch function if what it computes for a row
    depends on the others in the batch.
    """
    first = _answers(feature, rows)
    backwards = range(rows.num_rows)[::-1]
    again = _answers(feature, rows.take(pa.array(backwards, pa.int64())))[::-1]
    if found := _difference(first, again):
        return _says_twice(found, rows.slice(found[0], 1).to_pylist()[0])
    if feature.batch:
        alone = [_answers(feature, rows.slice(i, 1))[0] for i in range(rows.num_rows)]
        if found := _difference(first, alone):
            position, one, other = found
            return (
                f"it returns {one} for the row {_shown(rows.slice(position, 1).to_pylist()[0])} in a batch of"
                f" {rows.num_rows}, but {other} for it alone; a batch function may use nothing of other rows"
            )
    reasons = [_wrong_type(feature, rows.slice(i, 1)) for i in range(rows.num_rows)]
    return reasons[0] if reasons and all(reasons) else None


def try_out_computed(ref: ComputedRef) -> str | None:
    """Why a request-time feature cannot be put in force, or None; refused as `try_out` does."""
    needs = {need: _made_up(needed.column) for need, needed in ref.needs.items()}
    rows = pa.table(needs).to_pylist()
    first = [_answer(partial(ref.feature.compute, row)) for row in rows]
    again = [_answer(partial(ref.feature.compute, row)) for row in rows[::-1]][::-1]
    if found := _difference(first, again):
        return _says_twice(found, rows[found[0]])
    reasons = [_wrong(ref.feature.column, partial(ref.feature.function, dict(row))) for row in rows]
    return reasons[0] if all(reasons) else None


def _answers(feature: Feature, rows: pa.Table) -> list[str]:
    """What a feature's function answers for each row, in words that tell any two values apart."""
    derived = derive(rows, {feature.name: feature})
    values = derived.columns[feature.name].to_pylist()
    return [
        FAILURE if failed is not None else repr(value)
        for value, failed in zip(values, derived.failed.to_pylist(), strict=True)
    ]


def _answer(compute: Callable[[], Any]) -> str:
    try:
        return repr(compute())
    except BaseException as error:
        let_stop(error)
        return FAILURE


def _difference(first: Sequence[str], other: Sequence[str]) -> tuple[int, str, str] | None:
    """The position of the first two answers that differ, and both."""
    pairs = enumerate(zip(first, other, strict=True))
    return next(((position, one, two) for position, (one, two) in pairs if one != two), None)


def _says_twice(found: tuple[int, str, str], row: Mapping[str, Any]) -> str:
    _, one, other = found
    return (
        f"it returns {one} for the row {_shown(row)}, and {other} when it is asked again; a feature may depend on its"
        " row alone, not on chance, on the time, or on what was computed before"
    )


def _shown(row: Mapping[str, Any]) -> str:
    return f"{dict(row)!r:.{SHOWN_ROW}}"


def _wrong_type(feature: Feature, row: pa.Table) -> str | None:
    if feature.batch:
        return _wrong(feature.column, lambda: feature.call_batch(row)[0])
    return _wrong(feature.column, lambda: feature.function(row.to_pylist()[0]))


def _wrong(column: Column, compute: Callable[[], Any]) -> str | None:
    """In what way the value that is computed is none of `column`; None also where computing it fails."""
    try:
        value = compute()
    except BaseException as error:  # what it returns is what counts here
        let_stop(error)
        return None
    try:
        checked(value, column)
    except TypeError as error:
        return str(error)
    except BaseException as error:
        let_stop(error)
    return None
