"""Calls of the trainer that move aliases, and that say something of versions and runs."""

from __future__ import annotations

from collections.abc import Mapping

from modelmill.client.transport import Json, Transport, url_of


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
