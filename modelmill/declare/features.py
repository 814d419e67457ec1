"""Features that are no column of a row, as a definitions file declares them: windowed aggregates, request features."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelmill import windows
from modelmill.columns.types import Column, checked
from modelmill.declare.declarations import About, Declared, Entity, Source, defined_at
from modelmill.errors import did_you_mean
from modelmill.times import duration_text, seconds
from modelmill.windows import FUNCTIONS, ROWS, Reading

NUMERIC = frozenset({"sum", "mean", "std", "min", "max"})
"""Functions of an aggregate that need a column of numbers."""


class Aggregate(Declared):
    """A feature of an entity made of a source's rows in a window before now, such as the mean delay of two hours.

    Args:
        source: whose rows are aggregated.
        column: of the source; None, with `count`, counts rows. Missing values are left out.
        function: `count`, `sum`, `mean`, `min`, `max`, `std` (of a sample), `last` or `count_distinct` (exact below 256
            distinct values, above it an estimate with a standard error of 6 %).
        window: how long the window is: `15m`, `2h`, `30d`; 90 days at most.
        by: the entity, or a tuple with its join key; may be left out where the source is about one entity.
        hop: by how much the window's edges move at a time; without it, so that a window has 24 hops or more.
        available_after: how long after its event time a row can be known, such as a flight's delay when it has landed;
            the window ends so much before now.
        name: of the feature; otherwise `{column}_{function}_{window}`, or `{source}_count_{window}`.
    """

    def __init__(
        self,
        source: Source,
        column: str | None,
        function: str,
        *,
        window: str,
        by: Entity | Sequence[str] | None = None,
        hop: str | None = None,
        available_after: str | None = None,
        name: str | None = None,
        description: str = "",
        owner: str = "",
        tags: Sequence[str] = (),
    ) -> None:
        if not isinstance(source, Source):
            raise ValueError(f"Aggregate({source!r}): expected a Source; write Aggregate(visits, 'pages', 'sum', ...)")
        name = f"{column or source.name}_{function}_{window}" if name is None else name
        what = f"aggregate {name!r}"
        self.source = source
        self.entity = _aggregated_by(what, source, by)
        of = _aggregated_column(what, source, column, function)
        length, delay = _seconds(what, "window", window), 0
        if available_after is not None:
            delay = _seconds(what, "available_after", available_after)
        given_hop = None if hop is None else _seconds(what, "hop", hop)
        try:
            chosen_hop = windows.checked_hop(length, given_hop, delay)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        self.reading = Reading(function, of.name, of.dtype, length, chosen_hop, delay)
        self.about = About.of(what, description, owner, tags)
        super().__init__("aggregate", name, reserved=True)
        self.column = Column(self.name, _result_dtype(function, of.dtype), function not in ("count", "count_distinct"))

    def __str__(self) -> str:
        """As it is registered: `mean(arr_delay) 2h hop 5m after 2h`."""
        reading = self.reading
        of = "*" if reading.column == ROWS else reading.column
        after = f" after {duration_text(reading.available_after)}" if reading.available_after else ""
        return f"{reading.function}({of}) {duration_text(reading.window)} hop {duration_text(reading.hop)}{after}"


def _aggregated_by(owner: str, source: Source, by: Entity | Sequence[str] | None) -> Entity:
    """The entity of `source` that an aggregate is about."""
    own = {entity.key: entity for entity in source.entities}
    keys = ", ".join(own)
    if by is None:
        if source.entity is None:
            raise ValueError(f"{owner}: source {source.name!r} is about several entities; add by=(key,), one of {keys}")
        return source.entity
    if isinstance(by, Entity):
        if by not in source.entities:
            raise ValueError(f"{owner}: entity {by.name!r} is not one of source {source.name!r}, whose keys are {keys}")
        return by
    wanted = (by,) if isinstance(by, str) else tuple(by)
    if len(wanted) > 1:
        raise ValueError(
            f"{owner}: by={wanted!r} names several keys; expected one: declare an entity for the pair, with a key of"
            " its own as a column of the rows"
        )
    if not wanted or wanted[0] not in own:
        near = did_you_mean(str(wanted[0]), own) if wanted else f"; known: {keys}"
        raise ValueError(f"{owner}: by={wanted!r} is not a join key of source {source.name!r}{near}")
    return own[wanted[0]]


def _aggregated_column(owner: str, source: Source, column: str | None, function: str) -> Column:
    """The column that an aggregate is of; `ROWS` for rows."""
    if function not in FUNCTIONS:
        raise ValueError(f"{owner}: function {function!r} is not one of {', '.join(FUNCTIONS)}")
    if column is None:
        if function != "count":
            raise ValueError(f"{owner}: {function} needs a column of source {source.name!r}; only count goes without")
        return Column(ROWS, "int", False)
    if column not in source.columns:
        near = did_you_mean(str(column), source.columns)
        raise ValueError(f"{owner}: {column!r} is not a column of source {source.name!r}{near}")
    of = source.columns[column]
    if of.dtype == "str" and function in NUMERIC:
        raise ValueError(f"{owner}: {function} of {column!r}, which is str; expected a column of float, int or bool")
    return of


def _result_dtype(function: str, dtype: str) -> str:
    if function in ("count", "count_distinct") or (function == "sum" and dtype != "float"):
        return "int"
    return "float" if function in ("sum", "mean", "std") else dtype


def _seconds(owner: str, what: str, text: str) -> int:
    try:
        return seconds(text)
    except ValueError as error:
        raise ValueError(f"{owner}: {what}={error}") from None


# --- request-time features: computed from request inputs and stored features.
#
# The same function, called in the same way, fills training frames and answers requests.

NEED = re.compile(r"([A-Za-z_]\w*\.)?[A-Za-z]\w*", re.ASCII)


class RequestFeature(Declared):
    """A feature that is computed for each request, and for each row of a training frame.

    `version` is the hash of the function's code and needs (`modelmill.declare.definitions_file`): a served version is
    computed by the function that it was trained with.
    """

    version = ""

    def __init__(self, function: Callable[[Any], Any], column: Column, needs: Sequence[str], about: About) -> None:
        self.function = function
        self.column = column
        self.needs = tuple(needs)
        self.about = about
        super().__init__("request feature", column.name, reserved=True)
        self.file, self.line = defined_at(function, self)

    def compute(self, values: Mapping[str, Any]) -> Any:
        """The value that the function returns for these values of its needs.

        Raises:
            TypeError, ValueError: for a value that is not what the feature declares; and whatever the function raises.
        """
        return checked(self.function(dict(values)), self.column)


def request_feature(
    *, dtype: Any, needs: Sequence[str], description: str = "", owner: str = "", tags: Sequence[str] = ()
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Declare a feature that is computed at request time, named as the function.

    `needs` are names of a model's inputs, and of stored features, plain or `entity.feature`; the function gets a dict
    of them by these names, and returns the value, or None where `dtype` allows it (`float | None`). A model uses it by
    its name among its `features`. The function may depend on these values alone.
    """

    def declare(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        what = f"request feature {function.__name__!r}"
        if isinstance(needs, str) or not needs or not all(isinstance(n, str) and NEED.fullmatch(n) for n in needs):
            raise ValueError(f"{what}: needs={needs!r}; expected names of inputs and features, at least one")
        if twice := [name for name in needs if list(needs).count(name) > 1]:
            raise ValueError(f"{what}: needs {twice[0]!r} twice")
        column = Column.of(function.__name__, dtype)
        RequestFeature(function, column, needs, About.of(what, description, owner, tags))
        return function

    return declare
