"""What the command `features` lists, and what it answers to mistakes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelmill import cli
from modelmill.cli import terminal


class Features:
    """A client of a system with features of one entity."""

    def features(self) -> list[dict[str, object]]:
        return [{"entity": "user", "name": "feature_1", "dtype": "float", "source": "users", "kind": "column"}]

    def entity(self, entity: str, key: str, *, detail: bool) -> dict[str, object]:
        value = {"value": None, "status": "expired", "age_seconds": 7200.5} if detail else None
        return {"entity": entity, "key": key, "features": {"feature_1": value}}


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "client", Features)


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
