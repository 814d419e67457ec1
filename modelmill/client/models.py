"""Calls of the trainer about models, their versions and aliases."""

from __future__ import annotations

from modelmill.client.transport import Json, Transport


class ModelCalls(Transport):
    """What the registry knows, and which version an alias names."""

    def card(
        self, model: str = "", *, version: int | None = None, alias: str = "champion", run: str | None = None
    ) -> str:
        """The card of a model as one HTML page: of what `alias` names, of a version, or of a run."""
        if run is not None:
            path = f"runs/{run}"
        else:
            path = f"models/{model}" if version is None else f"models/{model}/versions/{version}"
        params = {"alias": alias} if run is None and version is None else {}
        return self._send("GET", f"{self.settings.trainer_url}/{path}/card", params=params).text

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
