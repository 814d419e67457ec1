"""What the monitor reads from its environment beside the shared settings."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from modelmill.settings import Settings


class MonitorSettings(Settings):
    """The monitor's settings."""

    window_retention: int = Field(48, ge=1, le=168)
    """Hours that the per-minute windows are kept, and thus the longest window that can be asked for; 168 at most."""

    @property
    def retention(self) -> timedelta:
        """`window_retention` as a length of time."""
        return timedelta(hours=self.window_retention)
