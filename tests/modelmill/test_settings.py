from __future__ import annotations

import pytest

from modelmill.errors import SettingsError
from modelmill.settings import Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"MODELMILL_{field.upper()}", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)


def test_every_setting_has_a_default() -> None:
    assert Settings.read().redis_url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_read_from_its_variable(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"redis_url": "redis://elsewhere/1", "host": "0.0.0.0", "storage_url": "s3://bucket"}.get(field, "7")
    value = f"http://{field}:1" if field.endswith("_url") and "://" not in value else value
    monkeypatch.setenv(f"MODELMILL_{field.upper()}", value)
    assert str(getattr(Settings.read(), field)) in (value, f"{value}.0")


def test_redis_is_also_found_without_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://shared:6379/0")
    assert Settings.read().redis_url == "redis://shared:6379/0"


def test_modelmill_s_own_variable_goes_before_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://shared:6379/0")
    monkeypatch.setenv("MODELMILL_REDIS_URL", "redis://own:6379/0")
    assert Settings.read().redis_url == "redis://own:6379/0"


@pytest.mark.parametrize(
    "variable, value, expected",
    [
        ("MODELMILL_PORT", "eighty", "a valid integer"),
        ("MODELMILL_PORT", "70000", "less than or equal to 65535"),
        ("MODELMILL_WORKERS", "0", "greater than or equal to 1"),
        ("MODELMILL_REDIS_TIMEOUT", "-1", "greater than 0"),
        ("MODELMILL_MAX_BODY_BYTES", "lots", "a valid integer"),
        ("MODELMILL_REDIS_URL", "localhost:6379", "redis"),
        ("REDIS_URL", "localhost:6379", "redis"),
        ("MODELMILL_FEATURE_URL", "localhost:8001", "http"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_with_its_value(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}='{value}' cannot be used: .*{expected}"):
        Settings.read()


def test_paths_can_be_appended_to_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMILL_FEATURE_URL", "http://feature:8001/")
    assert Settings.read().feature_url == "http://feature:8001"


def test_storage_lies_below_where_the_program_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert Settings.read().storage_url == f"file://{tmp_path}/.modelmill/storage"
