"""Counts what this process has open."""

from __future__ import annotations

from pathlib import Path


def open_descriptors() -> list[Path]:
    """Give the descriptors that are open, by their names in /proc."""
    return sorted(Path("/proc/self/fd").iterdir())
