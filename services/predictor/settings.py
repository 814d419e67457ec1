"""Settings of the predictor."""

from __future__ import annotations

from pydantic import Field

from modelmill.settings import Settings


class PredictorSettings(Settings):
    """What the predictor reads from its environment."""

    threads: int = Field(2, ge=1)
    """Threads of each worker process: more than two only wait for Python's lock, and a fifth fewer requests a second
    are answered with four."""
    max_instances: int = Field(1000, ge=1)
    """Instances that one predict request may hold."""
    report_buffer: int = Field(10_000, ge=1)
    """Answered rows that may wait to be reported to `events:predictions`; further ones are dropped and counted."""
