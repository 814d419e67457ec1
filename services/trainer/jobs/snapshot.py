"""Which data a training would read now: it changes with the definitions and with each ingest into what the model reads.

A position is read before the frame is asked for. So a running training has read at least what its position names, and
a request that finds the same position now would have it read nothing else.
"""

from __future__ import annotations

import hashlib
from typing import Any

from modelmill.declare.definitions import Definitions
from modelmill.state import keys


def position(redis: Any, definitions: Definitions, model: str) -> str:
    """The position of the data of a model, as 16 hexadecimal digits; `redis` may decode or not."""
    recipe = definitions.model(model)
    read = {definitions.label_source(recipe).name}
    for source in definitions.sources.values():
        if any(entity.name in {e.name for e in recipe.entities} for entity in source.entities):
            read.add(source.name)
    known = [definitions.fingerprint]
    with redis.pipeline() as pipe:
        for name in sorted(read):
            pipe.get(keys.ingest_clock(name))
            pipe.zrange(keys.ingest_open(name), 0, -1)  # its rows are there only once it has ended
        answers = pipe.execute()
    for name, clock, going_on in zip(sorted(read), answers[::2], answers[1::2], strict=True):
        known.append(f"{name}={_text(clock)},{','.join(map(_text, going_on))}")
    return hashlib.sha256("|".join(known).encode()).hexdigest()[:16]


def _text(clock: bytes | str | None) -> str:
    return clock.decode() if isinstance(clock, bytes) else clock or ""
