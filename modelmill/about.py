"""What people say about what they declare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What people say about a declaration, for the catalogue."""

    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, what: str, description: str, owner: str, tags: Sequence[str]) -> About:
        """Check that each is text.

        Raises:
            ValueError: for anything else, such as a single text for `tags`.
        """
        if isinstance(tags, str) or not all(isinstance(text, str) for text in (description, owner, *tags)):
            given = (description, owner, tags)
            raise ValueError(
                f"{what}: description, owner and tags are {given!r}; expected texts, and for tags a list of texts"
            )
        return cls(description, owner, tuple(tags))
