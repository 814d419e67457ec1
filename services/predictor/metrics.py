"""The predictor's Prometheus metrics. No label grows with time: versions are values here, not labels."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PREDICTIONS = Counter(
    "modelmill_predictions_total", "Predict requests for a live model, served or failed", ["model", "outcome"]
)
DROPPED = Counter("modelmill_predictions_dropped_total", "Answered rows that could not be reported")
LIVE_VERSION = Gauge(
    "modelmill_live_version",
    "Version that is served, 0 for none; of several worker processes, the one that swapped last",
    ["model"],
    multiprocess_mode="mostrecent",
)
SWAPS = Counter("modelmill_model_swaps_total", "Versions that went live in a worker process", ["model"])
LOAD_FAILURES = Counter("modelmill_model_load_failures_total", "Champions that could not be loaded", ["model"])
LOAD_SECONDS = Histogram(
    "modelmill_model_load_seconds",
    "Time to read, check and warm up a version, in seconds",
    ["model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
