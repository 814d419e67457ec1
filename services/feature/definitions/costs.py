"""What definitions cost that work, but not as their author may expect: sentences for a plan's warnings."""

from __future__ import annotations

from collections.abc import Iterator

from modelmill.declare.definitions import Definitions

COMPACT_FIELDS = 512
"""Fields up to which Redis keeps a hash compact (`hash-max-listpack-entries`)."""
BYTES_COMPACT, BYTES_LARGE = 40, 88
"""Bytes that a field with a number takes in Redis 7.0, in a hash of 512 fields and in one of 513."""


def warnings(definitions: Definitions) -> list[str]:
    """A sentence for each entity whose online hash is too wide to stay compact in Redis."""
    return list(_wide_hashes(definitions))


def _wide_hashes(definitions: Definitions) -> Iterator[str]:
    for entity in definitions.entities:
        features = definitions.features_of(entity)
        fields = len(features) + len({ref.source for ref in features.values()})  # and a time for each source
        if fields > COMPACT_FIELDS:
            yield (
                f"entity {entity!r} has {len(features)} features, {fields} fields with their times: over"
                f" {COMPACT_FIELDS} a Redis hash stops being compact, so that one entity takes about"
                f" {fields * BYTES_LARGE // 1000} kB instead of {fields * BYTES_COMPACT // 1000} kB"
            )
