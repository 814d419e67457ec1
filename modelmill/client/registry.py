"""Calls of the trainer about models and their versions."""

from __future__ import annotations

from collections.abc import Mapping

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


# --- calls of the trainer that move aliases, and that say something of versions and runs


class AliasCalls(Transport):
    """Promotion, rollback, and what goes with them."""

    def promote(
        self,
        model: str,
        version: int,
        *,
        alias: str = "champion",
        by: str = "",
        reason: str = "",
        expected: int | None = None,
        force: bool = False,
    ) -> Json:
        """Let `alias` name `version`; predictors serve the alias `champion`.

        Args:
            expected: the version that the alias must name by now, or 0 for none; refused with 409 otherwise.
            force: promote a version that failed its gates, for the `reason`, which is kept.
        """
        body = {"version": version, "by": by, "reason": reason, "force": force}
        return self._call("PUT", self._alias(model, alias), json=body | _given(expected=expected))

    def rollback(
        self,
        model: str,
        *,
        alias: str = "champion",
        by: str = "",
        reason: str = "",
        to: int | None = None,
        expected: int | None = None,
        force: bool = False,
    ) -> Json:
        """Let the champion, or another alias, be the version that it was before, or `to`, an earlier one."""
        body = {"alias": alias, "by": by, "reason": reason, "force": force} | _given(to=to, expected=expected)
        return self._call("POST", url_of(self.settings.trainer_url, "models", model, "rollback"), json=body)

    def delete_alias(
        self, model: str, alias: str, *, by: str = "", reason: str = "", expected: int | None = None
    ) -> Json:
        """Let `alias` name nothing; its history stays."""
        params = {"by": by, "reason": reason} | _given(expected=expected)
        return self._call("DELETE", self._alias(model, alias), params=params)

    def history(self, model: str, alias: str | None = None, limit: int = 50) -> list[Json]:
        """The newest moves of every alias of a model, or of one, newest first."""
        params = {"limit": limit} | _given(alias=alias)
        return list(
            self._call("GET", url_of(self.settings.trainer_url, "models", model, "history"), params=params)["history"]
        )

    def tag(self, of: str, tags: Mapping[str, str | None]) -> Json:
        """Tag a version, `MODEL@VERSION`, or a run; None takes a tag away."""
        return self._call("PATCH", f"{self._remarked(of)}/tags", json=dict(tags))

    def note(self, of: str, text: str, *, by: str = "") -> Json:
        """Add a note to a version, `MODEL@VERSION`, or to a run."""
        return self._call("POST", f"{self._remarked(of)}/notes", json={"text": text, "by": by})

    def prune(self, model: str, *, dry_run: bool = False, by: str = "") -> Json:
        """Remove packages and run files of old versions of a model, or with `dry_run` only say of which."""
        return self._call(
            "POST", url_of(self.settings.trainer_url, "models", model, "prune"), json={"dry_run": dry_run, "by": by}
        )

    def _alias(self, model: str, alias: str) -> str:
        return url_of(self.settings.trainer_url, "models", model, "aliases", alias)

    def _remarked(self, of: str) -> str:
        model, at, version = of.partition("@")
        return url_of(self.settings.trainer_url, *(("models", model, "versions", version) if at else ("runs", of)))


def _given(**fields: str | int | None) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
