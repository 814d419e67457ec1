"""What is live, as it is told to callers."""

from __future__ import annotations

from typing import Any

from modelmill.packages.package import Input
from services.predictor.live import LiveModels


def describe(live: LiveModels, name: str) -> dict[str, Any]:
    """A model's live version and what it takes, both absent where none is live, and why its champion is not."""
    served, problem = live.served.get(name), live.problems.get(name)
    about: dict[str, Any] = {"model": name, "version": None}
    if served is not None:
        manifest = served.manifest
        about |= {
            "version": served.version,
            "loaded": served.loaded,
            "run": manifest.run,
            "task": manifest.task,
            "runtime": manifest.runtime,
            "label": manifest.labels or manifest.label,
            "classes": manifest.classes,
            "entities": manifest.entities,
            "inputs": [_described(item) for item in manifest.inputs],
            "auxiliary": [_described(item) for item in manifest.auxiliary],
            "metrics": manifest.metrics,
            "example": manifest.example,
        }
    about["problem"] = problem and {
        "version": problem.version,
        "reason": problem.reason,
        "since": problem.since,
    }
    return about


def _described(item: Input) -> dict[str, Any]:
    about: dict[str, Any] = {"name": item.name, "dtype": item.dtype, "nullable": item.nullable, "entity": item.entity}
    if item.has_default:
        about["default"] = item.default
    if item.needs is not None:
        about |= {"needs": list(item.needs.values()), "version": item.version}
    return about
