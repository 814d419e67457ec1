"""The catalogue of features, as people look at it."""

from __future__ import annotations

from collections.abc import Mapping

from modelmill.definitions import Definitions


def features_overview(definitions: Definitions) -> list[Mapping[str, object]]:
    """Every online feature with its type, origin, version and the models that use it."""
    uses: dict[tuple[str, str], list[str]] = {}
    for model in definitions.models.values():
        for ref in definitions.resolve([entity.name for entity in model.entities], model.features):
            uses.setdefault((ref.entity, ref.column.name), []).append(model.name)
    return [
        {
            "entity": entity,
            "name": name,
            "dtype": ref.column.dtype,
            "nullable": ref.column.nullable,
            "source": ref.source,
            "kind": "function" if derived else "column",
            "version": derived.version if derived else None,
            "models": uses.get((entity, name), []),
        }
        for entity in definitions.entities
        for name, ref in definitions.features_of(entity).items()
        for derived in [definitions.features[ref.source].get(name)]
    ]
