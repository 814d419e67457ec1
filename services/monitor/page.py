"""The first page: an overview as HTML. Jinja escapes whatever came from outside."""

from __future__ import annotations

from datetime import datetime

from flask import render_template

from services.monitor.chart import HEIGHT, WIDTH, bars, lines
from services.monitor.overview import Overview

POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'"
"""Content-Security-Policy: nothing but the monitor's own files."""
SHOWN_VERSIONS = 5
"""Versions of a model that are listed, the newest."""


def render(found: Overview | None) -> str:
    """The page that shows an overview, or says that there is none because Redis is away."""
    return render_template(
        "page.html",
        overview=found,
        shown_versions=SHOWN_VERSIONS,
        ms=milliseconds,
        number=number,
        ago=ago,
        bars=bars,
        lines=lines,
        width=WIDTH,
        height=HEIGHT,
    )


def milliseconds(value: float | None) -> str:
    """A latency, or a dash where there is none."""
    return "\N{EN DASH}" if value is None else number(value)


def number(value: float) -> str:
    """A number with about the three digits that a relative error of 1 % leaves meaning to: `0.123`, `4.57`, `1,234`."""
    if value == 0:
        return "0"
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def ago(time: str, now: datetime) -> str:
    """How long before `now` an ISO time was, such as `12 s ago`; the time itself where it cannot be read."""
    try:
        seconds = (now - datetime.fromisoformat(time)).total_seconds()
    except (TypeError, ValueError):
        return time
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"
