"""The four services as Python calls: what the command line does, for programs and notebooks.

from modelmill import Client

client = Client()
client.ingest("users", "user_data.csv")
client.train("user_target", wait=True)
client.predict("user_target", user_id="a27b09ee-0cf8-11ed-899e-b29c4abd48f4")
"""

from __future__ import annotations

import httpx

from modelmill.client.exchange import ExchangeCalls
from modelmill.client.features import FeatureCalls
from modelmill.client.registry import AliasCalls, ModelCalls
from modelmill.client.runs import LoggedRun
from modelmill.client.serving import EventCalls, PredictionCalls
from modelmill.client.training import TraceCalls, TrialCalls, TriggerCalls
from modelmill.client.transport import Json, Progress

__all__ = ["Client", "Json", "LoggedRun", "Progress"]


class Client(
    FeatureCalls,
    TraceCalls,
    TrialCalls,
    TriggerCalls,
    ModelCalls,
    AliasCalls,
    ExchangeCalls,
    PredictionCalls,
    EventCalls,
):
    """Calls the services at the addresses in `settings` (default: from the environment).

    Every method raises `RequestFailed` where the service answers with an error, and `Unavailable` where it does not
    answer within `timeout` seconds.
    """

    def ready(self) -> dict[str, Json]:
        """Service to its answer to `/readyz`, or to why it did not answer."""
        settings = self.settings
        answers: dict[str, Json] = {}
        for service in ("feature", "trainer", "predictor", "monitor"):
            url = getattr(settings, f"{service}_url")
            try:
                answers[service] = {"url": url, **self.http.get(f"{url}/readyz", timeout=2.0).json()}
            except (httpx.TransportError, ValueError) as error:
                answers[service] = {"url": url, "status": "down", "problems": {"http": str(error)}}
        return answers
