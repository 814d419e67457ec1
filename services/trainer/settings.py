"""Settings of the trainer and its workers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelmill.settings import Settings


class TrainerSettings(Settings):
    """What the trainer and its workers read from their environment."""

    train_timeout: int = Field(3600, ge=1)
    """Seconds that a training may take before it is stopped and counts as failed."""
    train_queue_limit: int = Field(1000, ge=1)
    """Trainings that may wait in the queue; further ones are refused."""
    frame_timeout: float = Field(1800.0, gt=0)
    """Seconds that a training waits for its frame from the feature service, and then for each next piece of it."""
    train_openmp_wait: Literal["passive", "active"] | None = None
    """How OpenMP threads of a training wait for each other. `passive` lets them sleep: about twice as fast where other
    processes keep the cores busy, and half as fast where they are idle; left out, OpenMP decides."""
