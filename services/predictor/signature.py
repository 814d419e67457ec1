"""What a model takes, worked out once when it is loaded, so that a request finds everything by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from modelmill.declare.features import RequestFeature
from modelmill.packages.package import Input, Manifest
from modelmill.state.online import EntityReader, StoredFeature, TileReader
from modelmill.windows import Reading

Value = float | int | bool | str | None
"""A model input's value; None is a missing one, which only nullable inputs may have."""

NO_FUNCTIONS: Mapping[str, RequestFeature] = MappingProxyType({})


@dataclass(frozen=True)
class EntitySignature:
    """What a model needs of one entity."""

    name: str
    reader: EntityReader
    key: str
    """Name of the join key in requests."""
    inputs: tuple[int, ...]
    """The positions of the reader's features among the model's inputs."""
    nullable: tuple[bool, ...]
    """Whether each of them may be missing."""
    aggregates: tuple[tuple[int, ...], ...]
    """Those of the values of each of its readers of tiles."""
    positions: frozenset[int] = field(init=False)
    """All of these."""
    numbers: dict[int, int] = field(init=False)
    """The reverse of `inputs`: position among the model's inputs to that among the reader's features."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", frozenset((*self.inputs, *chain.from_iterable(self.aggregates))))
        object.__setattr__(self, "numbers", {position: number for number, position in enumerate(self.inputs)})


@dataclass(frozen=True)
class ComputedInput:
    """A model input that is computed for each instance."""

    position: int
    """Among the model's inputs."""
    feature: RequestFeature
    needs: tuple[tuple[str, int], ...]
    """Name under which its function gets a value, and the value's position."""
    required: tuple[int, ...]
    """Positions of needs without which the function is not called; its value is then missing."""


@dataclass(frozen=True)
class Signature:
    """What a model takes in a request and reads from the online store."""

    inputs: tuple[Input, ...]
    """In the order of the model's columns."""
    auxiliary: tuple[Input, ...]
    """What is read only to compute inputs; their positions follow those of the inputs."""
    computed: tuple[ComputedInput, ...]
    spare: dict[int, frozenset[int]]
    """Position of an auxiliary input to those of the inputs that are computed from it: given them, it is not needed."""
    positions: dict[str, int]
    """Input, or auxiliary one, to its position."""
    entities: tuple[EntitySignature, ...]
    """Those of which features are read."""
    keys: dict[str, tuple[int, ...]]
    """Join key to the entities that have it; several may share one."""
    requested: tuple[int, ...]
    """Positions of the inputs that come with the request."""

    @classmethod
    def of(cls, manifest: Manifest, functions: Mapping[str, RequestFeature] = NO_FUNCTIONS) -> Signature:
        """The signature in `manifest`; `functions` are those of its computed inputs.

        Raises:
            ValueError, KeyError: for inputs whose entity, source or field the manifest does not name.
        """
        fed = len(manifest.inputs)
        inputs = (*manifest.inputs, *manifest.auxiliary)
        positions = {item.name: position for position, item in enumerate(inputs)}
        computed = tuple(
            _computed(at, item.needs, functions[item.name], inputs, positions)
            for at, item in enumerate(inputs)
            if item.needs is not None
        )
        spare = {
            at: frozenset(one.position for one in computed if at in dict(one.needs).values())
            for at in range(fed, len(inputs))
        }
        # What is read for inputs that may be missing may be missing itself.
        lenient = {at for at, dependents in spare.items() if all(inputs[one].nullable for one in dependents)}
        taken = [replace(item, nullable=True) if at in lenient else item for at, item in enumerate(inputs)]
        named = {item.entity for item in inputs if item.entity is not None}
        entities = tuple(_entity(name, key, taken) for name, key in manifest.entities.items() if name in named)
        if unknown := named - manifest.entities.keys():
            raise ValueError(f"inputs of entity {sorted(unknown)}, which has no join key")
        join_keys = {
            key: tuple(i for i, entity in enumerate(entities) if entity.key == key)
            for key in manifest.entities.values()
        }
        return cls(
            inputs[:fed],
            inputs[fed:],
            computed,
            spare,
            positions,
            entities,
            join_keys,
            tuple(at for at, item in enumerate(inputs) if item.entity is None and item.needs is None),
        )

    def input(self, position: int) -> Input:
        """The input, or auxiliary one, at a position."""
        fed = len(self.inputs)
        return self.inputs[position] if position < fed else self.auxiliary[position - fed]

    @property
    def names(self) -> list[str]:
        """All names that an instance may hold."""
        return [*self.keys, *self.positions]


def _computed(
    position: int,
    needs: Mapping[str, str],
    feature: RequestFeature,
    inputs: Sequence[Input],
    positions: Mapping[str, int],
) -> ComputedInput:
    found = tuple((need, positions[name]) for need, name in needs.items())
    return ComputedInput(position, feature, found, tuple(at for _, at in found if not inputs[at].nullable))


def _entity(name: str, key: str, inputs: Sequence[Input]) -> EntitySignature:
    own: list[tuple[int, bool, StoredFeature]] = []
    ages: dict[str, int | None] = {}
    groups: dict[str, list[tuple[int, Reading]]] = {}
    for position, item in enumerate(inputs):
        if item.entity != name:
            continue
        if item.tiles is None:
            source = _stated(item, "source")
            stored = StoredFeature(item.name, _stated(item, "field"), item.dtype, source)
            own.append((position, item.nullable, stored))
            ages[source] = item.max_age
        elif item.reading is None:
            raise ValueError(f"input {item.name!r} names tiles, but not how they are read")
        else:
            groups.setdefault(_stated(item, "tiles"), []).append((position, item.reading))
    tiles = tuple(TileReader(group, tuple(reading for _, reading in found)) for group, found in groups.items())
    return EntitySignature(
        name,
        EntityReader(name, tuple(feature for *_, feature in own), ages, tiles),
        key,
        tuple(position for position, *_ in own),
        tuple(nullable for _, nullable, _ in own),
        tuple(tuple(position for position, _ in found) for found in groups.values()),
    )


def _stated(item: Input, attribute: str) -> str:
    value: Any = getattr(item, attribute)
    if not value:
        raise ValueError(f"input {item.name!r} of entity {item.entity!r} names no {attribute}")
    return str(value)
