"""Modelmill keeps scikit-learn models on tabular data alive in production."""

from modelmill.columns.types import Expect, column
from modelmill.declare.declarations import Entity, Model, Source, feature
from modelmill.declare.features import Aggregate, request_feature
from modelmill.declare.gates import at_least, improves, latency_below, no_segment_worse, parity, size_below
from modelmill.declare.search import Candidate
from modelmill.declare.splits import at_random, by_group, by_time
from modelmill.declare.triggers import after, cron, every, on

__all__ = [
    "Aggregate",
    "Candidate",
    "Client",
    "Entity",
    "Expect",
    "Model",
    "Source",
    "after",
    "at_least",
    "at_random",
    "by_group",
    "by_time",
    "column",
    "cron",
    "every",
    "feature",
    "improves",
    "latency_below",
    "no_segment_worse",
    "on",
    "parity",
    "request_feature",
    "size_below",
]


def __getattr__(name: str) -> object:
    if name == "Client":  # only users of the client pay for importing an HTTP library
        from modelmill.client import Client

        return Client
    raise AttributeError(f"module 'modelmill' has no attribute {name!r}")
