"""The monitor's state as Prometheus metrics, read from Redis at each scrape, so that it is right in every process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelmill.state.connections import AWAY
from modelmill.state.registry import Registry
from services.monitor.aggregates import Aggregates
from services.monitor.latency import report
from services.monitor.windows import OUTCOMES

log = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)


class MonitorCollector(Collector):
    """How far the stream is counted, and each model's latency in the last minute or two."""

    def __init__(self, aggregates: Aggregates, registry: Registry) -> None:
        self.aggregates = aggregates
        self.registry = registry

    def collect(self) -> Iterator[Metric]:
        """The metrics; none while Redis is away, which `/readyz` says too."""
        try:
            metrics = [*self._counting(), self._latency()]
        except AWAY as error:
            log.warning("no metrics of the windows: %s", error)
            return
        yield from metrics

    def _counting(self) -> Iterator[Metric]:
        progress, lag = self.aggregates.progress(), self.aggregates.lag()
        outcomes = CounterMetricFamily(
            "modelmill_monitor_events", "Prediction events by what became of them in the windows", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            outcomes.add_metric([outcome], progress.outcomes.get(outcome, 0))
        yield outcomes
        yield GaugeMetricFamily(
            "modelmill_monitor_lag_seconds", "Age of the oldest event that is not counted yet", lag.seconds
        )
        yield GaugeMetricFamily("modelmill_monitor_lag_entries", "Events that are not counted yet", lag.entries)

    def _latency(self) -> Metric:
        family = GaugeMetricFamily(
            "modelmill_prediction_latency_seconds",
            "Latency of the predictions of the last whole minute and the present one",
            labels=["model", "quantile"],
        )
        for model in self.registry.models():
            summary = report(self.aggregates, model, WINDOW).overall()
            for quantile, milliseconds in (("0.5", summary.p50), ("0.95", summary.p95), ("0.99", summary.p99)):
                if milliseconds is not None:
                    family.add_metric([model, quantile], milliseconds / 1000)
        return family
