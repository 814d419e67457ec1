"""How much is measured: enough for figures worth quoting, or just enough to see that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """What a run of the benchmarks spends."""

    seconds: int = 4
    """Of load in each measurement."""
    repeats: int = 3
    """Of each measurement, interleaved with those of its competitors; the median is reported."""
    rows: int = 100_000
    """To ingest at once."""
    history_rows: int = 10_000_000
    """That a training frame looks through, for a tenth as many rows of its own."""
    timed_swaps: int = 50
    """Whose time to the first answer is measured, a model."""
    months: int = 12
    """Of flights to train on."""
    memory_swaps: int = 200
    """After which the predictor's memory is looked at again."""
    runs: int = 10_000
    """In the registry, to look through."""


QUICK = Effort(
    seconds=1, repeats=1, rows=10_000, history_rows=100_000, timed_swaps=5, memory_swaps=20, months=1, runs=1_000
)
