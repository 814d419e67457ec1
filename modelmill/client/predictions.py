"""Calls of the predictor, and of the monitor about its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelmill.client.transport import Json, Transport, url_of


class PredictionCalls(Transport):
    """What models answer, and how fast."""

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]] | None = None, /, **values: Any) -> Json:
        """Predict for one object given as keywords, or for a list of `instances`."""
        body = {"instances": list(instances)} if instances is not None else values
        return self._call("POST", url_of(self.settings.predictor_url, "models", model, "predict"), json=body)

    def latency(self, model: str, window: str = "15m") -> Json:
        """Count, errors, mean and quantiles of a model's latency, in all and by version."""
        return self._call(
            "GET", url_of(self.settings.monitor_url, "models", model, "latency"), params={"window": window}
        )
