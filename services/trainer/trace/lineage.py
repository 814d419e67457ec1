"""Where an answer comes from, and what was made of a source: from what is recorded, without guessing.

Back: prediction -> version -> run -> frame, sources, features and code, trigger. Forward: source -> features, models,
runs, versions, aliases.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from modelmill.declare import applied
from modelmill.declare.code_version import definition
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef, model_features, sources_of
from modelmill.errors import InvalidRequest, ModelmillError, NotFound, UnknownName
from modelmill.state import bus, keys
from modelmill.state.events import PredictionFailed, PredictionServed, parse
from modelmill.state.registry import Registry, Version
from modelmill.state.runs import Run, code_file

PREDICTIONS_PER_PAGE = 1000
"""Predictions that are looked at at a time."""
RUNS = 1000
"""The newest runs of each model that are looked at for a source."""
Node = dict[str, Any]


class Lineage:
    """Walks through what the registry, the log of predictions and the definitions in force tell."""

    def __init__(self, registry: Registry, definitions: Definitions) -> None:
        self.registry = registry
        self.definitions = definitions

    def of(self, asked: str) -> Node:
        """The lineage of a prediction's id, of `MODEL@VERSION` or `MODEL@ALIAS`, or of a run.

        Raises:
            UnknownName: for a version or an alias that does not exist.
            NotFound: for what is no run and no prediction that is kept.
        """
        if "@" in asked:
            model, _, name = asked.partition("@")
            return {"asked": asked, "kind": "version", **self._version(self.registry.named(model, name))}
        try:
            run = self.registry.runs.get(asked)
        except UnknownName:
            return {"asked": asked, "kind": "prediction", **self._prediction(asked)}
        version = self.registry.version(run.model, run.version) if run.version else None
        return {"asked": asked, "kind": "run", "version": self._released(version), **self._run(run)}

    def of_source(self, source: str) -> Node:
        """What was made of a source, by the definitions in force and by the newest `RUNS` runs of each model.

        Raises:
            UnknownName: for a source that is not declared and that no run has read.
        """
        declared = self.definitions.sources.get(source)
        runs = [run for run in self._newest_runs() if _reads(run, source)]
        if declared is None and not runs:
            raise UnknownName("source", source, self.definitions.sources)
        models = self.definitions.models.values()
        return {
            "asked": source,
            "kind": "source",
            "columns": {name: str(column) for name, column in declared.columns.items()} if declared else {},
            "features": of_source(self.definitions, source),
            "models": [model.name for model in models if source in sources_of(self.definitions, model)],
            "runs": [_brief(run, source) for run in runs],
            "versions": [self._named(run.model, run.version) for run in runs if run.version],
            "looked_at": f"the newest {RUNS} runs of each model",
        }

    # --- from an answer back

    def _prediction(self, asked: str) -> Node:
        """One that is still in the log, by its id; that of one instance of several is `{id}-{instance}`."""
        prediction, _, row = asked.partition("-")
        for entry in self._predictions():
            if entry.get("id") == prediction:
                event = parse(entry)
                break
        else:
            raise NotFound(f"{asked!r} is no run, and {self._kept()}", prediction=asked)
        if isinstance(event, PredictionFailed):
            return {"prediction": asdict(event), "version": None, "run": None}
        assert isinstance(event, PredictionServed)
        return {"prediction": _answer(event, row), **self._version(self.registry.version(event.model, event.version))}

    def _predictions(self) -> Iterator[dict[str, str]]:
        """The log, newest first."""
        last = "+"
        while page := self.registry.redis.xrevrange(keys.EVENTS_PREDICTIONS, last, "-", count=PREDICTIONS_PER_PAGE):
            yield from (entry for _, entry in page)
            last = f"({page[-1][0]}"

    def _kept(self) -> str:
        """That a prediction is not in the log, and what the log holds."""
        count = self.registry.redis.xlen(keys.EVENTS_PREDICTIONS)
        if not count:
            return "the log of predictions is empty"
        [(_, oldest)] = self.registry.redis.xrange(keys.EVENTS_PREDICTIONS, count=1)
        return (
            f"not among the {count} predictions that are kept, of which the oldest is of {oldest['time']}; about"
            f" {bus.MAX_LENGTH} are"
        )

    def _version(self, version: Version) -> Node:
        try:
            run = self._run(self.registry.runs.get(version.run))
        except UnknownName:
            run = {"run": None, "trigger": None, "frame": None, "sources": {}, "features": [], "code": None}
        return {"version": self._released(version), **run}

    def _released(self, version: Version | None) -> Node | None:
        """A version with the aliases that name it, and every move to it or away from it."""
        if version is None:
            return None
        moves = [m for m in self.registry.history(version.model) if version.version in (m.version, m.previous)]
        return {
            **self._named(version.model, version.version),
            "created": version.created,
            "package": version.package,
            "pruned": version.pruned,
            "moves": [asdict(move) for move in moves],
        }

    def _named(self, model: str, number: int) -> Node:
        aliases = sorted(alias for alias, now in self.registry.aliases(model).items() if now == number)
        return {"model": model, "version": number, "aliases": aliases}

    def _run(self, run: Run) -> Node:
        return {
            "run": {
                name: getattr(run, name)
                for name in ("id", "model", "status", "started", "finished", "attempt", "job", "estimator", "params",
                             "metric", "metrics", "decision", "gates", "error",
                             "parent", "trial", "trials")
            },
            "trigger": {"kind": run.trigger, "by": run.by},
            "frame": {
                name: getattr(run, name)
                for name in ("data_fingerprint", "start", "as_of", "data_start", "data_end", "rows_train", "rows_test",
                             "rows_dropped", "split")
            },
            "sources": {
                source: {"known_until": position, "rows": run.source_rows.get(source)}
                for source, position in run.history.items()
            },
            "features": self._features(run),
            "code": {
                "definitions": run.definitions,
                "file": code_file(run.model, run.id),
                "modules": run.modules,
                "git_commit": run.git_commit,
                "packages": dict(sorted(run.packages.items())),
                "machine": run.machine,
            },
        }  # fmt: skip

    def _features(self, run: Run) -> list[Node]:
        """With their code, if it can still be run; otherwise their names and where they are stored."""
        try:
            return of_model(applied.load(self.registry.redis, run.definitions), run.model)
        except ModelmillError as error:
            return [{"name": name, "code": "", "problem": error.detail} for name in run.features]

    def _newest_runs(self) -> Iterator[Run]:
        for model in self.registry.models():
            yield from self.registry.runs.newest(model, RUNS)


def _answer(event: PredictionServed, row: str) -> Node:
    """A prediction, or one instance of it.

    Raises:
        InvalidRequest: for an instance that it did not have.
    """
    if row and not (row.isdecimal() and int(row) < event.rows):
        raise InvalidRequest(f"prediction {event.id} has no instance {row!r}; expected 0 to {event.rows - 1}")
    chosen = [int(row)] if row else list(range(event.rows))
    return {
        "id": f"{event.id}-{row}" if row else event.id,
        "time": event.time,
        "rows": len(chosen),
        "keys": {entity: [found[i] for i in chosen] for entity, found in event.keys.items()},
        "features": {name: [values[i] for i in chosen] for name, values in event.features.items()},
        "predictions": [event.predictions[i] for i in chosen],
        "latency_ms": event.latency_ms,
    }


def _reads(run: Run, source: str) -> bool:
    return source in run.history or any(field.startswith(f"{source}.") for field in run.fields)


def _brief(run: Run, source: str) -> Node:
    return {
        "id": run.id,
        "model": run.model,
        "status": run.status,
        "started": run.started,
        "version": run.version,
        "known_until": run.history.get(source),
        "rows": run.source_rows.get(source),
    }


# --- the features of a model and of a source, each with its version and the code that computes it


def of_model(definitions: Definitions, model: str) -> list[dict[str, Any]]:
    """What a model is fed, in no other order than its own: stored features, computed ones, then request inputs."""
    recipe = definitions.model(model)
    found = model_features(definitions, recipe)
    return [
        *(_stored(definitions, ref) for ref in found.stored),
        *(_computed(definitions, ref) for ref in found.computed),
        *(_stored(definitions, ref) | {"only_for": "computed features"} for ref in found.auxiliary),
        *({"name": name, "dtype": str(column), "kind": "input", "code": ""} for name, column in recipe.inputs.items()),
    ]


def of_source(definitions: Definitions, source: str) -> list[dict[str, Any]]:
    """What is made of a source's rows, with the models that use it."""
    made = []
    for entity in definitions.entities:
        for ref in definitions.features_of(entity).values():
            if ref.source == source:
                made.append(_stored(definitions, ref) | {"models": _users(definitions, ref)})
    return made


def _users(definitions: Definitions, wanted: FeatureRef) -> list[str]:
    users = []
    for name, model in definitions.models.items():
        found = model_features(definitions, model)
        if any((ref.entity, ref.field) == (wanted.entity, wanted.field) for ref in (*found.stored, *found.auxiliary)):
            users.append(name)
    return users


def _stored(definitions: Definitions, ref: FeatureRef) -> dict[str, Any]:
    derived = definitions.derived(ref.source).get(ref.field)
    return {
        "name": ref.name,
        "dtype": str(ref.column),
        "kind": "aggregate" if ref.aggregate else "derived" if derived else "column",
        "entity": ref.entity,
        "source": ref.source,
        "version": derived.version if derived else "",
        "code": _code(definitions, derived.function) if derived else str(ref.aggregate or ""),
    }


def _computed(definitions: Definitions, ref: ComputedRef) -> dict[str, Any]:
    return {
        "name": ref.feature.name,
        "dtype": str(ref.feature.column),
        "kind": "computed",
        "version": ref.feature.version,
        "needs": {name: need.name for name, need in ref.needs.items()},
        "code": _code(definitions, ref.feature.function),
    }


def _code(definitions: Definitions, function: Callable[..., Any]) -> str:
    """The text of a function of the user's, without what decorators have put around it."""
    plain = inspect.unwrap(function)
    module = plain.__globals__["__name__"]
    node = definition(definitions.code.trees[module], plain.__code__)
    return ast.get_source_segment(definitions.code.text_of(module), node) or "" if node else ""
