"""Writes numbers and times for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from asyncbackup.errors import list_indices


def size(count: float) -> str:
    """Write bytes with the largest power of 1024 that leaves at least 1: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def rate(count: int, elapsed_s: float) -> str:
    """Write how fast so many bytes were: ``1.5 GiB/s``."""
    return f"{size(count / max(elapsed_s, 1e-6))}/s"


def wrote(count: int, elapsed_s: float) -> str:
    """Write a line that says how many bytes were written, and how fast."""
    return f"wrote {size(count)} in {elapsed_s:.1f} s ({rate(count, elapsed_s)})"


def target(file: str) -> str:
    """Write what something is written to: a file, or ``-`` as people know it."""
    return "standard output" if file == "-" else file


def source(file: str) -> str:
    """Write what something is read from: a file, or ``-`` as people know it."""
    return "standard input" if file == "-" else file


def objects(count: int) -> str:
    """Write a number of objects."""
    return f"{count:,} object{'' if count == 1 else 's'}"


def requests(count: int) -> str:
    """Write a number of requests."""
    return f"{count:,} {'request' if count == 1 else 'requests'}"


def missing(indices: Sequence[int]) -> str:
    """Write how many objects are missing, and which: ``2 objects (3, 7)``."""
    return f"{objects(len(indices))} ({list_indices(indices)})"


def backups(count: int) -> str:
    """Write a number of backups."""
    return f"{count:,} backup{'' if count == 1 else 's'}"


def pieces(count: int) -> str:
    """Write a number of pieces of a backup."""
    return f"{count:,} piece{'' if count == 1 else 's'}"


def records(count: int) -> str:
    """Write a number of records."""
    return f"{count:,} record{'' if count == 1 else 's'}"


def time(moment: datetime) -> str:
    """Write a time in the zone of this machine, and name the zone: ``2026-11-25 02:00 CET``."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def unsaid(reason: str | None) -> list[str]:
    """Say why a restored VDI does not say which snapshot it equals; no line if it does."""
    return [] if reason is None else [f"the VDI does not say which snapshot it equals: {reason}"]


def assumed(what: str | None) -> list[str]:
    """Write a line that says what was assumed; no line if nothing was."""
    return [] if what is None else [f"assumed, and not proved: {what}"]


def lacking(indices: Sequence[int]) -> list[str]:
    """Write a line that says which objects backups lack; no line if there are none."""
    return [] if not indices else [f"INCOMPLETE: the backups lack {missing(indices)}, which are older, or zeros"]
