"""What is in a folder."""

from __future__ import annotations

from pathlib import Path


def left_in(folder: Path) -> list[str]:
    """Give the names in a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir())
