"""How far one trigger of a model has come, and what became of it: its field in the hash `triggers:{model}`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import orjson

from modelmill.declare.triggers import Trigger
from modelmill.state.events import iso

FIRED = "fired"
"""The outcome of a trigger whose training waits in the queue."""
JOINED = "joined"
"""The outcome of an event that came while another one waited."""
WAITS = "waits_"
"""How outcomes begin that are not final."""


@dataclass(frozen=True, kw_only=True)
class TriggerState:
    """All that is remembered of a trigger. Times are ISO 8601 in UTC, empty where there are none."""

    position: str = ""
    """The newest slot that has had its outcome, or the last entry of the stream that was counted."""
    entries: int = 0
    """How many entries the stream has had up to there, the lost ones included."""
    lost: int = 0
    """Entries that were trimmed from the stream before they were read."""
    rows: int = 0
    """Accepted rows since it fired last."""
    event: str = ""
    """Id of the event that waits to fire it."""
    since: str = ""
    """When that came."""
    fired: str = ""
    """When it fired last; for a slot, its time."""
    waits: str = ""
    """What is in its way, where it would fire: `waits_busy`, ..."""
    outcome: str = ""
    """What became of it last; see `services.trainer.triggers.scheduler`."""
    outcome_at: str = ""
    day: str = ""
    """The day of UTC that `today` is about."""
    today: dict[str, int] = field(default_factory=dict)
    """Outcome to how often it came on that day."""

    @classmethod
    def read(cls, text: str | None) -> TriggerState:
        """The state that `str` wrote; that of a trigger that was never looked at for None."""
        return cls(**orjson.loads(text)) if text else cls()

    def __str__(self) -> str:
        known = {name: value for name, value in asdict(self).items() if value}
        return orjson.dumps(known).decode()

    def on(self, day: datetime) -> dict[str, int]:
        """Outcome to how often it came on the day of `day`."""
        return self.today if self.day == iso(day)[:10] else {}

    def limit(self, trigger: Trigger, now: datetime, *, slot: datetime | None = None) -> str:
        """The limit of `trigger` that keeps it from firing now: `cooldown`, `daily`, or nothing.

        The cool-down of a `slot` counts from slot to slot, whenever they were noticed.
        """
        if self.fired and iso((slot or now) - trigger.pause) < self.fired:
            return "cooldown"
        if trigger.daily is not None and self.on(now).get(FIRED, 0) >= trigger.daily:
            return "daily"
        return ""

    def noting(self, outcome: str, now: datetime, times: int = 1) -> TriggerState:
        """The state after an outcome came so often; one that only waits as before is noted once."""
        if not times or outcome == self.waits:
            return self
        today = self.on(now)
        waits = outcome if outcome.startswith(WAITS) else ""
        return replace(
            self,
            waits=self.waits if outcome == JOINED else waits,
            fired=iso(now) if outcome == FIRED else self.fired,
            outcome=outcome,
            outcome_at=iso(now),
            day=iso(now)[:10],
            today=today | {outcome: today.get(outcome, 0) + times},
        )
