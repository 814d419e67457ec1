"""Which data a training would read now: it changes with the definitions and with each ingest into what the model reads.

A position is read before the frame is asked for. So a running training has read at least what its position names, and
a request that finds the same position now would have it read nothing else.
"""

from __future__ import annotations

import hashlib
from typing import Any

from modelmill import keys
from modelmill.definitions import Definitions


def position(redis: Any, definitions: Definitions, model: str) -> str:
    """The position of the data of a model, as 16 hexadecimal digits; `redis` may decode or not."""
    recipe = definitions.model(model)
    read = {definitions.label_source(recipe).name}
    for source in definitions.sources.values():
        if any(entity.name in {e.name for e in recipe.entities} for entity in source.entities):
            read.add(source.name)
    names = sorted(read)
    clocks = redis.mget([keys.ingest_clock(name) for name in names])
    known = [f"{name}={_text(clock)}" for name, clock in zip(names, clocks, strict=True)]
    return hashlib.sha256("|".join([definitions.fingerprint, *known]).encode()).hexdigest()[:16]


def _text(clock: bytes | str | None) -> str:
    return clock.decode() if isinstance(clock, bytes) else clock or ""
