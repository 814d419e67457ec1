"""Run the predictor: `python -m services.predictor.main`."""

from __future__ import annotations

import sys
import threading

from flask import Flask

from modelmill import logs
from modelmill.errors import ModelmillError
from modelmill.http.app import serve
from modelmill.state.connections import connect
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor import loading
from services.predictor.app import create_app
from services.predictor.features import OnlineStore
from services.predictor.inference import LiveModels
from services.predictor.predictor import Predictor
from services.predictor.reports import Reports
from services.predictor.settings import PredictorSettings

PORT = 8003


def build() -> Flask:
    """Wire one worker process: a thread keeps the live models equal to the registry, another one reports."""
    logs.configure("predictor")
    settings = PredictorSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    listener = connect(settings.redis_url, timeout=settings.redis_timeout + loading.LISTEN)
    live = LiveModels()
    reconciler = loading.Reconciler(Registry(listener), Storage(settings.storage_url), live)
    threading.Thread(target=reconciler.run, args=[threading.Event()], name="reconcile", daemon=True).start()
    reports = Reports(redis, bound=settings.report_buffer)
    reports.start()
    predictor = Predictor(Registry(redis), OnlineStore(redis), live, reports, settings.max_instances)
    return create_app(settings, predictor)


def main() -> None:
    """Serve until SIGTERM; a setting that cannot be used stops here."""
    try:
        settings = PredictorSettings.read()
    except ModelmillError as error:
        sys.exit(str(error))
    serve("services.predictor.main:build", settings, PORT)


if __name__ == "__main__":
    main()
