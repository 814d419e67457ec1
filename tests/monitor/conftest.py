"""Fixtures of the monitor's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.monitor.processes import MonitorProcess

StartMonitor = Callable[..., MonitorProcess]


@pytest.fixture
def start_monitor(real_redis: RedisServer, tmp_path: Path) -> Iterator[StartMonitor]:
    """Starts a monitor process over `real_redis` each time it is called; all are stopped at the end."""
    started: list[MonitorProcess] = []

    def start(**options: int) -> MonitorProcess:
        monitor = MonitorProcess(real_redis.url, tmp_path / f"monitor-{len(started)}.log", **options)
        started.append(monitor)
        monitor.start()
        return monitor

    yield start
    for monitor in started:
        monitor.stop()
