"""Cards as HTML: of a run, of a version, of what an alias names.

A card is drawn from what is kept, whenever it is asked for, so that it always names the present aliases; a training
leaves the one of its version beside its evaluation, as `runs/{model}/{run}/card.html`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from modelmill.errors import NotFound
from modelmill.packages.package import MANIFEST, Manifest
from modelmill.state.registry import CHAMPION, Registry
from modelmill.state.runs import Run, folder
from modelmill.storage import Storage
from services.trainer.cards.card import Known, card
from services.trainer.evaluation import evaluation

log = logging.getLogger(__name__)

FILE = "card.html"
TEMPLATE = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template(FILE)
"""Compiled once, before a worker forks."""


class Cards:
    """The cards of what is in `registry` and `storage`."""

    def __init__(self, registry: Registry, storage: Storage) -> None:
        self.registry = registry
        self.storage = storage

    def of_run(self, run_id: str) -> str:
        """The card of a run, whatever became of it.

        Raises:
            UnknownName: for a run that does not exist.
        """
        return render(self._known(self.registry.runs.get(run_id)))

    def of_version(self, model: str, version: int) -> str:
        """The card of a version.

        Raises:
            UnknownName: for a version that does not exist.
        """
        return self.of_run(self.registry.version(model, version).run)

    def of_alias(self, model: str, alias: str = CHAMPION) -> str:
        """The card of the version that `alias` names.

        Raises:
            NotFound: where it names none.
        """
        number = self.registry.aliases(model).get(alias)
        if number is None:
            raise NotFound(f"model {model!r} has no version that is its {alias}", model=model, alias=alias)
        return self.of_version(model, number)

    def keep(self, run_id: str) -> None:
        """Write the card of a run beside its evaluation; where that fails, the log says so: the version is good."""
        try:
            run = self.registry.runs.get(run_id)
            self.storage.write(f"{folder(run.model, run.id)}/{FILE}", render(self._known(run)).encode())
        except Exception:
            log.exception("cannot keep the card of run %s", run_id)

    def _known(self, run: Run) -> Known:
        try:
            found = evaluation.read(self.storage, run.model, run.id)
        except NotFound:
            found = None
        manifest, size = self._package(run)
        aliases = [
            alias
            for alias, number in self.registry.aliases(run.model).items()
            if run.version is not None and number == run.version
        ]
        pruned = self.registry.version(run.model, run.version).pruned if run.version else ""
        return Known(run, found, manifest, size, sorted(aliases), pruned)

    def _package(self, run: Run) -> tuple[Manifest | None, int]:
        """The manifest and the size of its files; a broken package has none, and the card goes without."""
        if not run.package:
            return None, 0
        try:
            manifest = Manifest.from_json(self.storage.read(f"{run.package}/{MANIFEST}"))
            return manifest, sum(self.storage.size(f"{run.package}/{name}") for name in manifest.files)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None, 0


def render(known: Known) -> str:
    """The card as one HTML file that asks for nothing else."""
    return TEMPLATE.render(card=card(known))
