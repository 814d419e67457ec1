"""Run the monitor: `python -m services.monitor.main`."""

from __future__ import annotations

import sys
from threading import Event as Flag

from flask import Flask

from modelmill import logs
from modelmill.errors import ModelmillError
from modelmill.http.app import serve
from modelmill.state.connections import connect
from services.monitor.aggregates import Aggregates, Follower
from services.monitor.app import create_app
from services.monitor.settings import MonitorSettings

PORT = 8004


def build() -> Flask:
    """The app of one worker process, and the thread that counts events."""
    logs.configure("monitor")
    settings = MonitorSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    aggregates = Aggregates(redis, settings.retention)
    follower = Follower(aggregates, Flag(), wait=min(1.0, settings.redis_timeout / 2))
    follower.thread.start()
    return create_app(settings, aggregates, follower)


def main() -> None:
    """Serve until SIGTERM; a setting that cannot be used stops here."""
    try:
        settings = MonitorSettings.read()
    except ModelmillError as error:
        sys.exit(str(error))
    serve("services.monitor.main:build", settings, PORT)


if __name__ == "__main__":
    main()
