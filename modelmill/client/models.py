"""Calls of the trainer about what it trained: runs, models and their versions."""

from __future__ import annotations

from modelmill.client.transport import Json, Transport


class ModelCalls(Transport):
    """What the registry knows."""

    def runs(self, model: str | None = None, limit: int = 20) -> list[Json]:
        """The newest runs, of one model or of all."""
        params = {"limit": str(limit)} | ({"model": model} if model else {})
        return list(self._call("GET", f"{self.settings.trainer_url}/runs", params=params)["runs"])

    def run(self, run_id: str) -> Json:
        """A run with all its metadata."""
        return self._call("GET", f"{self.settings.trainer_url}/runs/{run_id}")

    def evaluation(self, run_id: str) -> Json:
        """How good a run's model is on its held-out rows: metrics, 95 % intervals, segments."""
        return self._call("GET", f"{self.settings.trainer_url}/runs/{run_id}/evaluation")

    def models(self) -> list[Json]:
        """Every declared or trained model with its aliases and newest version."""
        return list(self._call("GET", f"{self.settings.trainer_url}/models")["models"])

    def model(self, name: str) -> Json:
        """A model with its versions, aliases and their history."""
        return self._call("GET", f"{self.settings.trainer_url}/models/{name}")

    def version(self, model: str, version: int) -> Json:
        """A version with its metrics, gates, tags and notes."""
        return self._call("GET", f"{self.settings.trainer_url}/models/{model}/versions/{version}")
