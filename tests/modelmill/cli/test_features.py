"""What the command `features` lists, and what it answers to mistakes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import system
from modelmill.declare import definitions_file
from tests.conftest import USERS_MILL


class Features:
    """A client of a system with features of one entity."""

    def features(self) -> list[dict[str, object]]:
        return [{"entity": "user", "name": "feature_1", "dtype": "float", "source": "users", "kind": "column"}]

    def entity(self, entity: str, key: str, *, detail: bool) -> dict[str, object]:
        value = {"value": None, "status": "expired", "age_seconds": 7200.5} if detail else None
        return {"entity": entity, "key": key, "features": {"feature_1": value}}


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "client", Features)


@pytest.mark.usefixtures("features")
def test_features_of_an_unknown_entity_are_an_error_with_the_nearest_name() -> None:
    done = CliRunner().invoke(cli.main, ["features", "usr"])
    assert (done.exit_code, done.stderr) == (1, "error: entity 'usr' is not known; did you mean 'user'?\n")


@pytest.mark.usefixtures("features")
def test_features_of_a_known_entity_are_listed() -> None:
    done = CliRunner().invoke(cli.main, ["features", "user", "--json"])
    assert done.exit_code == 0
    assert '"feature_1"' in done.stdout


@pytest.mark.usefixtures("features")
def test_with_detail_each_feature_of_an_entity_is_a_line_with_its_status() -> None:
    done = CliRunner().invoke(cli.main, ["features", "user", "u", "--detail"])
    assert done.exit_code == 0
    assert any(line.split()[:2] == ["feature_1", "expired"] for line in done.stdout.splitlines())


def test_detail_is_about_one_entity() -> None:
    done = CliRunner().invoke(cli.main, ["features", "user", "--detail"])
    assert done.exit_code == 2
    assert "--detail is about one entity; name ENTITY and KEY" in done.stderr


class Applies:
    """A client of a system that says what applying the users example changes and computes."""

    def __init__(self, changes: list[str], backfilled: int) -> None:
        self.answer = {"changes": changes, "refusals": [], "warnings": [], "backfilled": backfilled, "failed": {}}
        self.versions: list[object] = []

    def apply(self, fingerprint: str, *, versions: object = None, **_: object) -> dict[str, object]:
        self.versions.append(versions)
        return self.answer


APPLIED = {
    "nothing": ([], 0, "Applied: nothing is declared otherwise; trainings go by the text as it is now.\n"),
    "a feature": (["features:user f: added"], 400, "  features:user f: added\nApplied; 400 rows backfilled.\n"),
    "a limit": (
        ["source:users max_age: 1d -> 2d"],
        0,
        "  source:users max_age: 1d -> 2d\nApplied; 0 rows backfilled.\n",
    ),
}


@pytest.mark.parametrize(("changes", "rows", "said"), APPLIED.values(), ids=APPLIED)
def test_apply_says_what_has_come_of_it(
    changes: list[str], rows: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "client", lambda: Applies(changes, rows))
    assert CliRunner().invoke(cli.main, ["apply", str(USERS_MILL), "--yes"]).stdout == said


def test_a_dry_run_says_so_where_nothing_would_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "client", lambda: Applies([], 0))
    done = CliRunner().invoke(cli.main, ["apply", str(USERS_MILL), "--dry-run"])
    assert done.stdout == "Nothing is declared otherwise.\n"


def test_apply_tells_the_service_which_versions_its_own_process_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Applies([], 0)
    monkeypatch.setattr(system, "client", lambda: client)
    CliRunner().invoke(cli.main, ["apply", str(USERS_MILL), "--yes"])
    version = definitions_file.load(USERS_MILL).features["users"]["feature_3"].version
    assert client.versions[0] == {"users.feature_3": version}
