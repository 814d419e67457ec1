"""What the commands that run the system answer to mistakes."""

from __future__ import annotations

from click.testing import CliRunner

from modelmill import cli


def test_an_example_that_cannot_be_run_is_wrong_usage() -> None:
    done = CliRunner().invoke(cli.main, ["up", "--example", "flights"])
    assert done.exit_code == 2
    assert "'users'" in done.stderr
