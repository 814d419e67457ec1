"""Events as JSON, as they come, and as sentences."""

from __future__ import annotations

from itertools import islice
from threading import Timer

import orjson
import pytest

from modelmill.errors import InvalidRequest, UnknownName
from modelmill.http import sse
from modelmill.state import bus
from modelmill.state.connections import Redis
from modelmill.state.events import (
    DefinitionsApplied,
    DriftDetected,
    EntityForgotten,
    Event,
    ModelPromoted,
    ModelTrained,
    QualityDegraded,
    RowsIngested,
    RunFailed,
    RunLogged,
    RunStarted,
)
from services.monitor import feed
from tests.conftest import RedisServer
from tests.monitor.events import failed, served

STREAM = RunStarted.stream


def started(run: str) -> RunStarted:
    return RunStarted(model="m", run=run, trigger="manual")


def promoted(previous: int | None, reason: str) -> ModelPromoted:
    return ModelPromoted(model="m", alias="champion", version=7, previous=previous, by="ann", reason=reason)


def runs(lines: list[str]) -> list[str]:
    """The runs that server-sent events tell of."""
    data = [line for message in lines for line in message.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line.removeprefix("data: "))["data"]["run"] for line in data]


def test_a_stream_has_a_short_name() -> None:
    assert feed.stream_named("models") == STREAM


def test_an_unknown_stream_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'models'"):
        feed.stream_named("modls")


def test_recent_events_are_the_newest_first(fake_redis: Redis) -> None:
    for run in "abc":
        bus.append(fake_redis, started(run))
    assert [event["data"]["run"] for event in feed.recent(fake_redis, STREAM, 2)] == ["c", "b"]


def test_an_unreadable_entry_is_passed_by(fake_redis: Redis) -> None:
    fake_redis.xadd(STREAM, {"type": "run.started", "run": "without model"})
    bus.append(fake_redis, started("a"))
    assert [event["data"]["run"] for event in feed.recent(fake_redis, STREAM, 10)] == ["a"]


def test_an_event_is_a_cloud_event_with_its_position_and_a_sentence() -> None:
    event = started("r1")
    assert feed.cloud_event(("5-0", event)) == {
        "specversion": "1.0",
        "id": event.id,
        "source": "modelmill",
        "time": event.time,
        "type": "run.started",
        "subject": "m",
        "position": "5-0",
        "text": "training began (manual)",
        "data": {"model": "m", "run": "r1", "trigger": "manual"},
    }


@pytest.mark.parametrize(
    "event, text",
    [
        (started("r"), "training began (manual)"),
        (RunFailed(model="m", run="r", error="no rows"), "training failed: no rows"),
        (RunLogged(model="m", run="r", metrics={"auc": 0.9}), "run logged by hand: auc 0.9"),
        (ModelTrained(model="m", version=7, run="r", metrics={"auc": 0.71234}), "version 7 trained: auc 0.7123"),
        (promoted(None, ""), "version 7 is champion: by ann"),
        (promoted(6, "better"), "version 7 is champion, before it version 6: better"),
        (
            DefinitionsApplied(fingerprint="f", changes=["model m added", "source s added"]),
            "model m added; source s added",
        ),
        (DefinitionsApplied(fingerprint="f", changes=[]), "definitions applied, nothing changed"),
        (RowsIngested(table="t", accepted=5, rejected=0, failed_features=0), "5 rows ingested"),
        (
            RowsIngested(table="t", accepted=5, rejected=2, failed_features=1),
            "5 rows ingested, 2 rejected, 1 feature values failed",
        ),
        (
            EntityForgotten(entity="user", digest="4f2e1a9c77", rows=3, by="ann", reason="asked"),
            "3 rows erased of the one with digest 4f2e1a9c, by ann",
        ),
        (served(0.5), "version 1 predicted 1 rows in 0.5 ms"),
        (DriftDetected(model="m"), "drift of inputs"),
        (DriftDetected(model="m", features=["a", "b"], detail="prices rose"), "drift of a, b: prices rose"),
        (QualityDegraded(model="m", metric="accuracy", detail="below 0.8"), "accuracy has degraded: below 0.8"),
        (failed(), "version 1 answered 404: no such user"),
    ],
)
def test_an_event_has_a_sentence(event: Event, text: str) -> None:
    assert feed.sentence(event) == text


def test_a_follower_hears_what_comes_after_its_position(fake_redis: Redis) -> None:
    for run in "abc":
        bus.append(fake_redis, started(run))
    first = feed.recent(fake_redis, STREAM, 3)[-1]["position"]
    heard = feed.follow(fake_redis, STREAM, first, 0, wait=0.01)
    assert runs(list(islice(heard, 3))) == ["b", "c"]


def test_a_follower_may_begin_with_the_newest(fake_redis: Redis) -> None:
    for run in "abc":
        bus.append(fake_redis, started(run))
    heard = feed.follow(fake_redis, STREAM, None, 2, wait=0.01)
    messages = list(islice(heard, 3))
    bus.append(fake_redis, started("d"))
    assert runs([*messages, next(heard)]) == ["b", "c", "d"]


def test_a_message_has_the_position_to_go_on_from_and_the_type(fake_redis: Redis) -> None:
    bus.append(fake_redis, started("a"))
    message = list(islice(feed.follow(fake_redis, STREAM, None, 1, wait=0.01), 2))[1]
    position = feed.recent(fake_redis, STREAM, 1)[0]["position"]
    assert message.startswith(f"id: {position}\nevent: run.started\ndata: {{")
    assert message.endswith("}\n\n")


def test_a_silent_stream_says_that_it_is_still_there(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.0)
    heard = feed.follow(fake_redis, STREAM, None, 0, wait=0.01)
    assert list(islice(heard, 3)) == [": following\n\n", ": still here\n\n", ": still here\n\n"]


def test_a_follower_is_let_go_after_its_lifetime(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIFETIME_SECONDS", 0.05)
    assert list(feed.follow(fake_redis, STREAM, None, 0, wait=0.01)) == [": following\n\n"]


@pytest.mark.parametrize("position", ["", "$", "5", "5-", "a-b", "5-0\n", "-1-0", "9" * 21 + "-0"])
def test_a_position_that_is_no_id_is_refused(fake_redis: Redis, position: str) -> None:
    with pytest.raises(InvalidRequest, match="Last-Event-ID"):
        feed.follow(fake_redis, STREAM, position, 0, wait=0.01)


@pytest.mark.redis
def test_a_follower_hears_an_event_while_it_waits(real_redis: RedisServer) -> None:
    redis = real_redis.client()
    heard = feed.follow(redis, STREAM, None, 0, wait=5)
    next(heard)
    Timer(0.2, bus.append, (redis, started("late"))).start()
    assert runs([next(heard)]) == ["late"]


@pytest.mark.redis
def test_a_followed_stream_ends_when_redis_goes(real_redis: RedisServer) -> None:
    heard = feed.follow(real_redis.client(), STREAM, None, 0, wait=0.05)
    next(heard)
    real_redis.stop(kill=True)
    assert list(heard) == []
