"""Run the feature service: `python -m services.feature.main`."""

from __future__ import annotations

import sys
from threading import Event as Flag
from threading import Thread

from flask import Flask

from modelmill import logs
from modelmill.errors import ModelmillError
from modelmill.http.app import serve
from modelmill.settings import Settings
from modelmill.state import bus, keys
from modelmill.state.connections import AWAY, connect, once_it_answers
from modelmill.storage import Storage
from services.feature.app import feature_app
from services.feature.definitions.catalogue import Catalogue
from services.feature.upkeep import compaction, rebuild
from services.feature.upkeep.statistics import StatisticsFiles, follow

PORT = 8001


def build() -> Flask:
    """The app of one worker process, and the threads that follow changes of the definitions and of the history."""
    logs.configure("feature")
    settings = Settings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)

    def read() -> tuple[str, str, Catalogue]:
        features, models = (bus.last_position(redis, s) for s in (keys.EVENTS_FEATURES, keys.EVENTS_MODELS))
        return features, models, Catalogue(redis, Storage(settings.storage_url), settings.definitions)

    features, models, catalogue = once_it_answers(read)
    files, stop = StatisticsFiles(catalogue.storage), Flag()
    for name, work in {
        "definitions": lambda: catalogue.follow(stop, features),
        "versions": lambda: catalogue.follow_versions(stop, models),
        "apply": catalogue.resume,
        "recovery": lambda: rebuild.watch(catalogue, stop),
        "statistics": lambda: follow(files, catalogue, stop, features),
        "rebuild": lambda: rebuild.resume(catalogue),
        "compaction": lambda: compaction.watch(catalogue, stop),
    }.items():
        Thread(target=work, name=name, daemon=True).start()
    return feature_app(catalogue, settings, files)


def main() -> None:
    """Check the definitions and put them in force, or leave that to the running service where rows must be computed.

    A mistake in the file stops here.
    """
    try:
        settings = Settings.read()
        redis = connect(settings.redis_url, timeout=settings.redis_timeout)
        catalogue = Catalogue(redis, Storage(settings.storage_url), settings.definitions)
        if catalogue.lacking() and catalogue.plan().changes:
            catalogue.check()
        else:
            catalogue.apply()
    except (ModelmillError, *AWAY) as error:
        sys.exit(str(error))
    serve("services.feature.main:build", settings, PORT)


if __name__ == "__main__":
    main()
