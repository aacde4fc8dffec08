"""Figures as text: medians with their spread, a markdown table, and the line that says where they come from."""

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from platform import processor, python_version
from statistics import median

from benchmarks.contest import PACKAGES, Result


def digits(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def spread(values: Sequence[float]) -> str:
    """Median, and the least and the greatest value where there are several."""
    if not values:
        return "died"
    if len(values) == 1:
        return digits(values[0])
    return f"{digits(median(values))} ({digits(min(values))}–{digits(max(values))})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the columns after the second are numbers."""
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def heading(results: Sequence[Result], options: argparse.Namespace) -> str:
    """Date, machine, threads, rounds and versions, as one line."""
    versions = {key: value for result in results for key, value in result.versions.items()}
    stated = [f"{key} {versions[key]}" for key in PACKAGES if key in versions]
    counts = [f"{options.threads} thread{'s' * (options.threads > 1)}"]
    counts += [f"{options.rounds} round{'s' * (options.rounds > 1)}"]
    return ", ".join([str(date.today()), cpu_name(), *counts, f"Python {python_version()}", *stated])


def cpu_name() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return processor() or "unknown processor"
