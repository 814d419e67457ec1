"""The first page in a real browser: what a person sees, scripts and style sheet included."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from modelmill.state import bus, keys
from modelmill.state.events import PredictionServed
from tests.conftest import RedisServer
from tests.eventually import eventually
from tests.monitor.conftest import StartMonitor
from tests.monitor.events import train
from tests.monitor.processes import MonitorProcess

pytestmark = [pytest.mark.browser, pytest.mark.redis]


def seen(url: str, profile: Path) -> str:
    """The page's document after five seconds in Chromium, thus after its script has refreshed it."""
    profile.mkdir(parents=True)
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
    )
    done = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={profile}", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.fixture
def monitor(real_redis: RedisServer, start_monitor: StartMonitor) -> MonitorProcess:
    """A monitor that has counted a prediction of `user_target` and one of a model with a hostile name."""
    redis = real_redis.client()
    for model in ("user_target", "<img src=x onerror=alert(1)>"):
        train(redis, model)
    event = PredictionServed(model="user_target", version=1, latency_ms=2.5, rows=1, features={}, predictions=[1])
    bus.append(redis, event)
    started = start_monitor()
    started.until_ready()
    eventually(lambda: redis.exists(keys.monitor_minutes("user_target")), within=10, saying="the prediction is counted")
    return started


def test_it_shows_model_version_and_latency(monitor: MonitorProcess, tmp_path: Path) -> None:
    page = seen(monitor.url, tmp_path / "chromium")
    assert "<h2>user_target</h2>" in page
    assert "champion v1" in page
    assert "<dt>p95</dt><dd>2.50" in page
    assert "<polyline" in page


def test_its_script_runs_and_says_that_it_is_live(monitor: MonitorProcess, tmp_path: Path) -> None:
    assert "live, every 2 s" in seen(monitor.url, tmp_path / "chromium")


def test_a_hostile_name_is_text(monitor: MonitorProcess, tmp_path: Path) -> None:
    assert "<h2>&lt;img src=x onerror=alert(1)&gt;</h2>" in seen(monitor.url, tmp_path / "chromium")
