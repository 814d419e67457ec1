"""Hops: how far apart the edges of a windowed aggregate lie. All lengths are whole seconds."""

from __future__ import annotations

from modelmill.durations import text

MINUTE, DAY = 60, 86_400
CHOICES = (DAY, 43_200, 21_600, 10_800, 7_200, 3_600, 1_800, 900, 600, 300, MINUTE)
"""What a hop is chosen from where a definition names none, coarsest first."""
ENOUGH_TILES = 24
"""Tiles a window that a chosen hop gives where it can: an edge is then at most 1/24 of the window too old."""
MAX_TILES = 366
"""Tiles in a window, and in a delay, at most: what one read has to merge, and what one entity keeps."""
MAX_WINDOW = 90 * DAY


def checked_hop(window: int, hop: int | None, delay: int) -> int:
    """The hop of a window: `hop` if it may be, or a chosen one where it is None.

    Raises:
        ValueError: where the window, the hop and the delay do not go together, saying what was expected.
    """
    if window > MAX_WINDOW:
        raise ValueError(f"window is {text(window)}; expected at most {text(MAX_WINDOW)}")
    if window % MINUTE:
        raise ValueError(f"window is {text(window)}; expected whole minutes")
    if hop is None:
        hop = default_hop(window)
    elif hop < MINUTE or hop % MINUTE or (DAY % hop and hop % DAY):
        raise ValueError(f"hop is {text(hop)}; expected whole minutes that divide a day, or whole days")
    if window < hop:
        raise ValueError(f"window {text(window)} is shorter than hop {text(hop)}")
    if window % hop:
        raise ValueError(f"window {text(window)} is not a multiple of hop {text(hop)}")
    for what, length in (("window", window), ("available_after", delay)):
        if length > MAX_TILES * hop:
            raise ValueError(
                f"{what} {text(length)} is {-(-length // hop)} times hop {text(hop)}; expected at most {MAX_TILES}"
                " times, so take a coarser hop"
            )
    return hop


def default_hop(window: int) -> int:
    """The coarsest of `CHOICES` that divides `window` into at least `ENOUGH_TILES`, or the finest that divides it."""
    fitting = [hop for hop in CHOICES if window % hop == 0]
    return next((hop for hop in fitting if window // hop >= ENOUGH_TILES), fitting[-1])
