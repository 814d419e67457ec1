"""Fixtures of the predictor's tests: everything in one process, on the in-memory Redis."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from modelmill.state.connections import Redis
from modelmill.state.registry import Registry
from modelmill.storage import Storage
from services.predictor.app import create_app
from services.predictor.features import OnlineStore
from services.predictor.inference import LiveModels
from services.predictor.loading import Reconciler
from services.predictor.predictor import Predictor
from services.predictor.reports import Reports
from services.predictor.settings import PredictorSettings


@pytest.fixture
def live() -> LiveModels:
    return LiveModels()


@pytest.fixture
def reconciler(fake_redis: Redis, storage: Storage, live: LiveModels) -> Reconciler:
    """Not running; a test says when it reconciles. What could not be loaded may be tried again at once."""
    return Reconciler(Registry(fake_redis), storage, live, retry=0)


@pytest.fixture
def reports(fake_redis: Redis) -> Reports:
    """Not running; a test says when it is flushed."""
    return Reports(fake_redis, bound=100)


@pytest.fixture
def client(fake_redis: Redis, live: LiveModels, reports: Reports) -> FlaskClient:
    """A client of the predictor's app."""
    predictor = Predictor(Registry(fake_redis), OnlineStore(fake_redis), live, reports, max_instances=3)
    return create_app(PredictorSettings(), predictor).test_client()
