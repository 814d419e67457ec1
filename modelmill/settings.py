"""Settings from environment variables, all with the prefix `MODELMILL_`.

`Settings` holds what every process reads; a service with settings of its own subclasses it in its `settings.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelmill.errors import SettingsError

Address = Annotated[str, AfterValidator(lambda url: url.rstrip("/")), Field(pattern="^https?://")]
"""Where a service answers; paths are appended to it."""


class Settings(BaseSettings):
    """What every Modelmill process reads from its environment."""

    model_config = SettingsConfigDict(env_prefix="MODELMILL_", frozen=True, populate_by_name=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("MODELMILL_REDIS_URL", "REDIS_URL"),
        pattern="^(redis|rediss|unix)://",
    )
    """The Redis that holds features, queue, events and registry."""
    redis_timeout: float = Field(2.0, gt=0)
    """Seconds that any one Redis call may take before it counts as unavailable."""
    host: str = "127.0.0.1"
    """The address that a service listens on."""
    port: int | None = Field(None, ge=1, le=65535)
    """The port that a service listens on; each has its own default, 8001 to 8004."""
    workers: int = Field(1, ge=1)
    """Worker processes of a service."""
    threads: int = Field(4, ge=1)
    """Threads of each worker process, thus requests that it answers at once."""
    storage_url: str = Field(default_factory=lambda: f"file://{Path('.modelmill/storage').absolute()}")
    """Where history and model packages lie: any fsspec URL that all services can reach."""
    definitions: Path = Path("mill.py")
    """The definitions file."""
    feature_url: Address = "http://127.0.0.1:8001"
    """Where the feature service answers."""
    trainer_url: Address = "http://127.0.0.1:8002"
    """Where the trainer answers."""
    predictor_url: Address = "http://127.0.0.1:8003"
    """Where the predictor answers."""
    monitor_url: Address = "http://127.0.0.1:8004"
    """Where the monitor answers."""
    max_body_bytes: int = Field(256 * 1024 * 1024, gt=0)
    """The largest request body that a service takes, in bytes."""

    @classmethod
    def read(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming the variable, its value and what was expected.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            variable = name if name.isupper() else f"MODELMILL_{name.upper()}"
            if variable not in os.environ:  # the one that also goes without the prefix: REDIS_URL
                variable = variable.removeprefix("MODELMILL_")
            raise SettingsError(
                f"{variable}={first['input']!r} cannot be used: {first['msg']}", setting=variable
            ) from None
