"""Run the feature service: `python -m services.feature.main`."""

from __future__ import annotations

import sys
from threading import Event as Flag
from threading import Thread

from flask import Flask

from modelmill import bus, keys, logs
from modelmill.connections import AWAY, connect
from modelmill.errors import ModelmillError
from modelmill.settings import Settings
from modelmill.storage import Storage
from modelmill.web import serve
from services.feature.app import feature_app
from services.feature.catalogue import Catalogue
from services.feature.statistics_files import StatisticsFiles, follow

PORT = 8001


def build() -> Flask:
    """The app of one worker process, and the threads that follow changes of the definitions and of the history."""
    logs.configure("feature")
    settings = Settings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    position = bus.last_position(redis, keys.EVENTS_FEATURES)  # before the file is loaded: nothing is missed between
    catalogue = Catalogue(redis, Storage(settings.storage_url), settings.definitions)
    Thread(target=catalogue.follow, args=(Flag(), position), name="definitions", daemon=True).start()
    files = StatisticsFiles(catalogue.storage)
    Thread(target=follow, args=(files, catalogue, Flag(), position), name="statistics", daemon=True).start()
    return feature_app(catalogue, settings, files)


def main() -> None:
    """Check and register the definitions, then serve; a mistake in the file stops here."""
    try:
        settings = Settings.read()
        redis = connect(settings.redis_url, timeout=settings.redis_timeout)
        Catalogue(redis, Storage(settings.storage_url), settings.definitions).apply()
    except (ModelmillError, *AWAY) as error:
        sys.exit(str(error))
    serve("services.feature.main:build", settings, PORT)


if __name__ == "__main__":
    main()
