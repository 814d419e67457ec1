"""Calls of the trainer about models and their versions."""

from __future__ import annotations

from modelmill.client.transport import Json, Transport, url_of


class ModelCalls(Transport):
    """What the registry knows."""

    def card(
        self, model: str = "", *, version: int | None = None, alias: str = "champion", run: str | None = None
    ) -> str:
        """The card of a model as one HTML page: of what `alias` names, of a version, or of a run."""
        if run is not None:
            path: tuple[str | int, ...] = ("runs", run)
        else:
            path = ("models", model) if version is None else ("models", model, "versions", version)
        params = {"alias": alias} if run is None and version is None else {}
        return self._send("GET", url_of(self.settings.trainer_url, *path, "card"), params=params).text

    def models(self) -> list[Json]:
        """Every declared or trained model with its aliases and newest version."""
        return list(self._call("GET", f"{self.settings.trainer_url}/models")["models"])

    def model(self, name: str) -> Json:
        """A model with its versions, aliases and their history."""
        return self._call("GET", url_of(self.settings.trainer_url, "models", name))

    def version(self, model: str, version: int) -> Json:
        """A version with its metrics, gates, tags and notes."""
        return self._call("GET", url_of(self.settings.trainer_url, "models", model, "versions", version))
