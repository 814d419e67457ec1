"""Three schedulers through a week in which clocks change: each slot fires once, neither lost nor doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest

from modelmill.state.connections import Redis
from services.trainer.jobs.queue import TrainingQueue
from services.trainer.triggers.scheduler import Scheduler
from tests.conftest import USERS_MILL
from tests.trainer.triggers.test_scheduler import ended, scheduling

BERLIN = ZoneInfo("Europe/Berlin")
WEEK = timedelta(days=7)
SPRING = datetime(2026, 3, 26, tzinfo=UTC)
"""Three days before Berlin's clocks go from 02:00 to 03:00, at 01:00 UTC of the 29th."""
AUTUMN = datetime(2026, 10, 22, tzinfo=UTC)
"""Three days before Berlin's clocks go from 03:00 back to 02:00, at 01:00 UTC of the 25th."""
TRIGGERS = (
    'cron("30 2 * * *", tz="Europe/Berlin")',
    'cron("*/30 * * * *", tz="Europe/Berlin")',
    'cron("15 1-3 * * *", tz="Europe/Berlin")',
    "every(seconds=5400)",
)


def each_a_model(folder: Path) -> Path:
    """Definitions in which each of the triggers has a model of its own, so that none is busy with another's slot."""
    head, model = USERS_MILL.read_text().split("Model(\n")
    models = [f"Model(\n{model}".replace("user_target", f"m{n}") for n in range(len(TRIGGERS))]
    texts = [text.replace("every(seconds=60)", trigger) for text, trigger in zip(models, TRIGGERS, strict=True)]
    mill = folder / "mill.py"
    mill.write_text("\n".join(["from modelmill import cron", head, *texts]))
    return mill


def minutes(start: datetime) -> list[datetime]:
    return [start + timedelta(minutes=m) for m in range(1, int(WEEK.total_seconds() / 60) + 1)]


def by_the_clock(start: datetime, hours: set[int], minute: int) -> set[datetime]:
    """The slots of a daily line: once a day for each hour, the skipped ones an hour later, of repeated ones the first."""
    found = {}
    for moment in minutes(start):
        local = moment.astimezone(BERLIN)
        if local.minute == minute and local.hour in hours:
            found.setdefault((local.date(), local.hour), moment)
    if start is SPRING and 2 in hours:  # there was no such hour
        found[datetime(2026, 3, 29).date(), 2] = datetime(2026, 3, 29, 1, minute, tzinfo=UTC)
    return set(found.values())


def looks(start: datetime, random: Random) -> Iterator[datetime]:
    """When schedulers look: a few times around each quarter of an hour, for no slot is at any other time."""
    for quarter in minutes(start)[14::15]:
        for least, most in ((-40, 0), (2, 25), (25, 59)):
            yield quarter + timedelta(seconds=random.uniform(least, most))


def expected(start: datetime) -> Counter[str]:
    """What fires each slot of the week, told without any cron library."""
    half_hours = {moment for moment in minutes(start) if moment.minute % 30 == 0}
    slots = {
        "cron '30 2 * * *' Europe/Berlin": by_the_clock(start, {2}, 30),
        "cron '*/30 * * * *' Europe/Berlin": half_hours,
        "cron '15 1-3 * * *' Europe/Berlin": by_the_clock(start, {1, 2, 3}, 15),
        "every 5400 s": {moment for moment in minutes(start) if moment.timestamp() % 5400 == 0},
    }
    return Counter(f"{name}, slot {slot:%Y-%m-%dT%H:%M:%SZ}" for name, due in slots.items() for slot in due)


@pytest.mark.parametrize("start, seed", [(SPRING, 1), (AUTUMN, 2)], ids=["spring", "autumn"])
def test_each_slot_fires_once_in_a_week_in_which_clocks_change(
    start: datetime, seed: int, fake_redis: Redis, fake_queue: TrainingQueue, tmp_path: Path
) -> None:
    mill, random = each_a_model(tmp_path), Random(seed)

    def started() -> Scheduler:
        return scheduling(fake_redis, fake_queue, mill)

    schedulers = [started() for _ in range(3)]
    schedulers[0].look(start)
    fired = Counter[str]()
    for now in looks(start, random):
        if random.random() < 0.02:
            schedulers[random.randrange(3)] = started()
        # Who looks, how often, and how far the clock of each is behind, is different each time.
        for scheduler in random.choices(schedulers, k=random.randint(1, 3)):
            scheduler.look(now - timedelta(seconds=random.choice((0, 0, 2))))
            if fake_queue.rq.count:
                fired.update(by for _, by in ended(fake_queue))
    assert fired == {**expected(start)}
    assert set(fired.values()) == {1}
