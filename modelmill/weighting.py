"""How much each row counts in a fit: by a column of the label's source, by its class, or by both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Weighting:
    """Weights of the rows that a model is fitted on; those that are held out count alike."""

    column: str | None = None
    """A column of the label's source with a number of at least 0 for each row."""
    classes: str | Mapping[Any, float] = field(default_factory=dict)
    """Class to its weight, 1 where it is not named; or `balanced`, for weights inverse to how frequent a class is."""

    def __bool__(self) -> bool:
        return bool(self.column or self.classes)

    @classmethod
    def of(cls, sample_weight: Any, class_weight: Any) -> Weighting:
        """Read what a model declares.

        Raises:
            ValueError: for anything but a column's name, and `"balanced"` or a dict of weights.
        """
        if not isinstance(sample_weight, str | None):
            raise ValueError(f"sample_weight={sample_weight!r}; expected the name of a column of the label's source")
        if class_weight is None:
            return cls(sample_weight)
        if class_weight == "balanced":
            return cls(sample_weight, "balanced")
        if not isinstance(class_weight, Mapping) or not class_weight:
            raise ValueError(f'class_weight={class_weight!r}; expected "balanced", or a dict of class to weight')
        for name, weight in class_weight.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"class_weight: {name!r} has {weight!r}; expected a number of at least 0")
        return cls(sample_weight, dict(class_weight))
