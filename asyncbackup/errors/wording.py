"""How messages name and list things."""

from __future__ import annotations

from collections.abc import Sequence


def name_snapshot(snapshot: int | str) -> str:
    """Write an id, or a tag between quotes, into a message."""
    return str(snapshot) if isinstance(snapshot, int) else f"'{snapshot}'"


def list_indices(indices: Sequence[int], limit: int = 20) -> str:
    """Write the first of some numbers of objects into a message, and how many more there are."""
    listed = ", ".join(map(str, indices[:limit]))
    return f"{listed} and {len(indices) - limit} more" if len(indices) > limit else listed


def name_unread(count: int) -> str:
    """Say that some backups could not be decrypted."""
    if not count:
        return ""
    if count == 1:
        return "; 1 backup there is encrypted, so its snapshot is not known"
    return f"; {count} backups there are encrypted, so their snapshots are not known"


def list_names(intro: str, names: Sequence[str], nothing: str, *, complete: bool, limit: int = 12) -> str:
    """Say which there are, or ``nothing``; if not ``complete``, ``names`` are some of them."""
    if not names:
        return nothing
    listed = ", ".join(names[:limit])
    if not complete:
        return f"among others, {intro} {listed}"
    return f"{intro} {listed} and {len(names) - limit} more" if len(names) > limit else f"{intro} {listed}"
