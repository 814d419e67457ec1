"""What the command line answers to mistakes, before or after it asked a service."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelmill import cli


class Features:
    """A client of a system with features of one entity."""

    def features(self) -> list[dict[str, object]]:
        return [{"entity": "user", "name": "feature_1", "dtype": "float", "source": "users", "kind": "column"}]


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "client", Features)


@pytest.mark.usefixtures("features")
def test_features_of_an_unknown_entity_are_an_error_with_the_nearest_name() -> None:
    done = CliRunner().invoke(cli.main, ["features", "usr"])
    assert (done.exit_code, done.stderr) == (1, "error: entity 'usr' is not known; did you mean 'user'?\n")


@pytest.mark.usefixtures("features")
def test_features_of_a_known_entity_are_listed() -> None:
    done = CliRunner().invoke(cli.main, ["features", "user", "--json"])
    assert done.exit_code == 0
    assert '"feature_1"' in done.stdout


def test_an_example_that_cannot_be_run_is_wrong_usage() -> None:
    done = CliRunner().invoke(cli.main, ["up", "--example", "flights"])
    assert done.exit_code == 2
    assert "'users'" in done.stderr
