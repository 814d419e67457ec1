"""The features of a model and of a source, each with its version and the code that computes it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from modelmill.declare.code_version import definition
from modelmill.declare.definitions import ComputedRef, Definitions, FeatureRef, model_features


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
