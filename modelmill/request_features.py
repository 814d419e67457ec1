"""Request-time features as a definitions file declares them: computed from request inputs and stored features.

The same function, called in the same way, fills training frames and answers requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelmill.about import About
from modelmill.columns import Column
from modelmill.declarations import Declared, defined_at
from modelmill.values import checked

NEED = re.compile(r"([A-Za-z_]\w*\.)?[A-Za-z]\w*", re.ASCII)


class RequestFeature(Declared):
    """A feature that is computed for each request, and for each row of a training frame.

    `version` is the hash of the function's code and needs that `modelmill.definitions_file` gives it: a served version
    is computed by the function that it was trained with.
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
