"""Modelmill keeps scikit-learn models on tabular data alive in production."""

from modelmill.aggregates import Aggregate
from modelmill.constraints import Expect, column
from modelmill.declarations import Entity, Model, Source, feature
from modelmill.request_features import request_feature
from modelmill.search import Candidate
from modelmill.splits import at_random, by_group, by_time
from modelmill.triggers import after, cron, every, on

__all__ = [
    "Aggregate",
    "Candidate",
    "Client",
    "Entity",
    "Expect",
    "Model",
    "Source",
    "after",
    "at_random",
    "by_group",
    "by_time",
    "column",
    "cron",
    "every",
    "feature",
    "on",
    "request_feature",
]


def __getattr__(name: str) -> object:
    if name == "Client":  # only users of the client pay for importing an HTTP library
        from modelmill.client import Client

        return Client
    raise AttributeError(f"module 'modelmill' has no attribute {name!r}")
