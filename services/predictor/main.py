"""Run the predictor: `python -m services.predictor.main`."""

from __future__ import annotations

import threading

from flask import Flask

from modelmill import web
from modelmill.connections import connect
from modelmill.registry import Registry
from modelmill.storage import Storage
from services.predictor import reconcile
from services.predictor.app import create_app
from services.predictor.live import LiveModels
from services.predictor.predictor import Predictor
from services.predictor.reports import Reports
from services.predictor.settings import PredictorSettings

PORT = 8003


def build() -> Flask:
    """Wire one worker process: a thread keeps the live models equal to the registry, another one reports."""
    settings = PredictorSettings.read()
    redis = connect(settings.redis_url, timeout=settings.redis_timeout)
    listener = connect(settings.redis_url, timeout=settings.redis_timeout + reconcile.LISTEN)
    live = LiveModels()
    reconciler = reconcile.Reconciler(Registry(listener), Storage(settings.storage_url), live)
    threading.Thread(target=reconciler.run, args=[threading.Event()], name="reconcile", daemon=True).start()
    reports = Reports(redis, bound=settings.report_buffer)
    reports.start()
    return create_app(settings, Predictor(redis, live, reports, settings.max_instances))


def main() -> None:
    """Serve until SIGTERM."""
    web.serve("services.predictor.main:build", PredictorSettings.read(), PORT)


if __name__ == "__main__":
    main()
