"""Calls of the trainer about models, their versions and aliases."""

from __future__ import annotations

from modelmill.client.transport import Json, Transport


class ModelCalls(Transport):
    """What the registry knows, and which version an alias names."""

    def models(self) -> list[Json]:
        """Every declared or trained model with its aliases and newest version."""
        return list(self._call("GET", f"{self.settings.trainer_url}/models")["models"])

    def model(self, name: str) -> Json:
        """A model with its versions, aliases and their history."""
        return self._call("GET", f"{self.settings.trainer_url}/models/{name}")

    def promote(self, model: str, version: int, *, alias: str = "champion", by: str = "", reason: str = "") -> Json:
        """Let `alias` name `version`; predictors serve the alias `champion`."""
        url = f"{self.settings.trainer_url}/models/{model}/aliases/{alias}"
        return self._call("PUT", url, json={"version": version, "by": by, "reason": reason})

    def rollback(self, model: str, *, by: str = "", reason: str = "") -> Json:
        """Let the champion be the version that it was before."""
        url = f"{self.settings.trainer_url}/models/{model}/rollback"
        return self._call("POST", url, json={"by": by, "reason": reason})
