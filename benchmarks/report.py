"""Figures as Markdown tables and as JSON."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from modelmill import local
from modelmill.settings import Settings

RESULTS = Path(__file__).with_name("results")

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """What one benchmark found."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """The single measurements behind the medians, for the JSON file."""

    def markdown(self) -> str:
        """The table with its title; text to the left, numbers to the right."""
        numeric = [any(isinstance(row[i], int | float) for row in self.rows) for i in range(len(self.columns))]
        lines = [
            self.columns,
            ["---:" if right else "---" for right in numeric],
            *([_shown(cell) for cell in row] for row in self.rows),
        ]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{table}\n" + (f"\n{self.note}\n" if self.note else "")


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on."""

    cpu: str
    cores: int
    system: str
    python: str
    redis: str
    workers: int
    """Processes of each service."""
    threads: int
    """Threads of each process."""

    @classmethod
    def here(cls) -> Machine:
        """This machine, and the settings of the services."""
        settings = Settings.read()
        return cls(
            cpu=_cpu_model(),
            cores=len(os.sched_getaffinity(0)),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            redis=_redis_version(),
            workers=settings.workers,
            threads=settings.threads,
        )

    def __str__(self) -> str:
        return (
            f"{self.cores} cores of {self.cpu}, {self.system}, Python {self.python}, Redis {self.redis};"
            f" {self.workers} process of {self.threads} threads a service"
        )


def save(machine: Machine, tables: Iterable[Table]) -> Path:
    """Write everything as JSON under `RESULTS` and return the file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    content = {"time": now.isoformat(), "machine": asdict(machine), "tables": [asdict(table) for table in tables]}
    file = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    file.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    return file


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:#.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _cpu_model() -> str:
    models = {value for name, value in _fields(Path("/proc/cpuinfo").read_text()) if name == "model name"}
    return ", ".join(sorted(models)) or platform.machine()


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def _redis_version() -> str:
    printed = subprocess.run([local.find_binary(), "--version"], capture_output=True, text=True, check=True)
    return next(word[2:] for word in printed.stdout.split() if word.startswith("v="))
