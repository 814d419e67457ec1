"""All that is known of one run, put together for its card."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelmill.packages.package import Manifest
from modelmill.state.runs import Run
from services.trainer.evaluation.evaluation import Evaluation


@dataclass(frozen=True)
class Known:
    """A run with what is kept beside it; what it did not come to is None."""

    run: Run
    evaluation: Evaluation | None = None
    manifest: Manifest | None = None
    size: int = 0
    """Bytes of the package's files."""
    aliases: list[str] = field(default_factory=list)
    """Those that name its version now."""
    pruned: str = ""
    """When its version was pruned; empty where it was not."""

    @property
    def metric(self) -> str:
        """The deciding one; empty where nothing was evaluated."""
        if self.run.metric:
            return self.run.metric
        return next(iter(self.evaluation.metrics), "") if self.evaluation else ""
