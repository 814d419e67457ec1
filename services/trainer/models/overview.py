"""What is known of the models: declared, trained, or both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from modelmill.declare import splits
from modelmill.declare.definitions import Definitions
from modelmill.errors import UnknownName
from modelmill.state.registry import Registry
from modelmill.storage import Storage

MOST_MOVES = 100
"""Moves of aliases that are shown with a model."""


class Overview:
    """The registry beside the definitions."""

    def __init__(self, registry: Registry, storage: Storage) -> None:
        self.registry = registry
        self.storage = storage

    def models(self, definitions: Definitions) -> list[dict[str, Any]]:
        """Every model in brief: policy and schedules where it is declared, aliases and newest version."""
        return [self._brief(definitions, name) for name in self._names(definitions)]

    def model(self, definitions: Definitions, name: str) -> dict[str, Any]:
        """All about a model: its recipe, its newest versions, aliases and their newest moves.

        Raises:
            UnknownName: for a model that is neither declared nor trained.
        """
        self.require(definitions, name)
        recipe = definitions.models.get(name)
        return {
            **self._brief(definitions, name),
            "label": recipe.label if recipe else None,
            "entities": [entity.name for entity in recipe.entities] if recipe else [],
            "features": list(recipe.features) if recipe else [],
            "inputs": list(recipe.inputs) if recipe else [],
            "metrics": [metric.name for metric in recipe.metrics] if recipe else [],
            "segments": list(recipe.segments) if recipe else [],
            "description": recipe.about.description if recipe else "",
            "owner": recipe.about.owner if recipe else "",
            "tags": list(recipe.about.tags) if recipe else [],
            "limits": recipe.limits if recipe else "",
            "split": splits.described(recipe.split) if recipe else "",
            "search": str(recipe.search) if recipe else "",
            "versions": [asdict(version) for version in self.registry.versions(name)],
            "history": [asdict(move) for move in self.registry.history(name)[-MOST_MOVES:]],
        }

    def require(self, definitions: Definitions, name: str) -> None:
        """Raise `UnknownName` for a model that is neither declared nor trained."""
        names = self._names(definitions)
        if name not in names:
            raise UnknownName("model", name, names)

    def _names(self, definitions: Definitions) -> list[str]:
        return sorted({*definitions.models, *self.registry.models()})

    def _brief(self, definitions: Definitions, name: str) -> dict[str, Any]:
        recipe = definitions.models.get(name)
        newest = self.registry.versions(name, limit=1)
        return {
            "name": name,
            "declared": recipe is not None,
            "metric": recipe.metric if recipe else None,
            "promote": recipe.promote if recipe else None,
            "gates": [str(gate) for gate in recipe.gates] if recipe else [],
            "train": [str(schedule) for schedule in recipe.train] if recipe else [],
            "aliases": self.registry.aliases(name),
            "latest": newest[0].version if newest else None,
        }
