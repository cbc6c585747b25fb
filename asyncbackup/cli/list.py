"""``asyncbackup list``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Final, NamedTuple

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PATH, json_option
from asyncbackup.cli.output import say, say_json, say_table
from asyncbackup.cli.running import run_async
from asyncbackup.engine.catalog import State, Stored
from asyncbackup.engine.selection import Beginning, Placed
from asyncbackup.format.identity import Identity
from asyncbackup.storage import Access
from asyncbackup.verbs.list_backups import Listing, list_backups

_HEADER: Final = ("SNAPSHOT", "KIND", "SIZE", "TAKEN", "FILE")

_DRAWN_LEVELS: Final = 16
"""Levels of branches to draw in a line."""

_LISTED: Final = 20
"""Files to name in one state. The others are only counted."""

_NAMED: Final = 3
"""The same where nothing else is known of them."""


@click.command(
    "list",
    cls=Verb,
    context_settings=CONTEXT,
    examples=["asyncbackup list /backup", "asyncbackup list s3://bucket/backup --vdi vm1 --json"],
)
@click.argument("folder", type=PATH, metavar="FOLDER")
@click.option("--vdi", metavar="VDI", help="List only the backups of this VDI.")
@access_options
@json_option
def command(*, folder: str, vdi: str | None, access: Access, as_json: bool) -> None:
    """List the backups in FOLDER, and in the folders in it, by what their manifests say. FOLDER may be a URL.

    An increment stands under what it goes on. If several backups are of that, it is the one with the least to read.
    A branch is indented. Where the backup that an increment goes on is missing, a line says so. That is no error: the
    exit code is 0.

    No data is read: use `asyncbackup verify` to prove it. `asyncbackup restore FOLDER@SNAPSHOT --to VDI` restores one.
    """
    listing = run_async(lambda: list_backups(folder, vdi=vdi, access=access), only_reads=True)
    if as_json:
        say_json(listing.as_dict())
        return
    for title, of_vdi in _sections(listing):
        say(title)
        say_table(_HEADER, list(_rows(of_vdi, listing)))
        say()
    for state in State:
        _say_others(state, [each for each in listing.catalog.others if each.state is state])
    say(_total(listing))


def _sections(listing: Listing) -> Iterator[tuple[str, list[Placed]]]:
    """Give what chains begin with, the oldest first, by VDI and cluster, each with a title."""
    roots = sorted((each for each in listing.placed if each.before is None), key=_order)
    sections = [(key, list(of_vdi)) for key, of_vdi in groupby(roots, key=_home)]
    names = Counter(vdi for (vdi, _), _ in sections)
    for (vdi, cluster), of_vdi in sections:
        where = f", of the cluster formatted {cluster or 'at an unknown time'}" if names[vdi] > 1 else ""
        yield f"VDI {vdi}{where}", of_vdi


def _home(placed: Placed) -> tuple[str, str]:
    return placed.backup.subject.vdi, placed.backup.subject.cluster or ""


def _order(placed: Placed) -> tuple[str, str, str, str]:
    return *_home(placed), placed.backup.identity.created or "", placed.backup.name


class _Line(NamedTuple):
    placed: Placed
    level: int
    """How many branches it is in."""
    is_branch: bool
    """Whether a branch begins with it."""


def _lines(roots: Iterable[Placed], placed: Iterable[Placed]) -> Iterator[_Line]:
    """Put each backup under the one that it stands on. The longest line goes straight on, behind its branches."""
    above: dict[str, list[Placed]] = {}
    length: dict[str, int] = {}
    for each in reversed(list(placed)):
        following = above.get(each.backup.name, [])
        length[each.backup.name] = 1 + max((length[one.backup.name] for one in following), default=0)
        if each.before is not None:
            above.setdefault(each.before.backup.name, []).append(each)
    left = [_Line(root, 0, is_branch=False) for root in roots][::-1]
    while left:
        line = left.pop()
        yield line
        following = sorted(above.get(line.placed.backup.name, []), key=_order)
        if following:
            straight = max(following, key=lambda each: length[each.backup.name])
            left.append(_Line(straight, line.level, is_branch=False))
            branches = [_Line(each, line.level + 1, is_branch=True) for each in following if each is not straight]
            left += branches[::-1]


def _rows(roots: Iterable[Placed], listing: Listing) -> Iterator[tuple[str, ...]]:
    first: dict[tuple[str, str], str] = {}
    for placed, level, is_branch in _lines(roots, listing.placed):
        backup = placed.backup
        base, identity = backup.subject.base_identity, backup.identity
        if placed.before is None and placed.beginning is Beginning.GAP and base is not None:
            yield f"({_label(base)})", "MISSING", "-", _taken(base), "-"
        notes = []
        if identity.created is not None:
            same = first.setdefault((identity.vdi_id, identity.created), backup.name)
            notes += [] if same == backup.name else [f"the same snapshot as {same}"]
        if backup.subject.may_lack:
            notes.append("may lack objects")
        if placed.before is None and placed.beginning is Beginning.CIRCLE:
            notes.append("what it goes on goes on it")
        yield (
            _branch(level, is_branch=is_branch) + _label(identity),
            "full" if base is None else "increment",
            text.size(backup.size),
            _taken(identity),
            backup.name + (f" ({'; '.join(notes)})" if notes else ""),
        )


def _branch(level: int, *, is_branch: bool) -> str:
    hidden = f"({level - _DRAWN_LEVELS} more) " if level > _DRAWN_LEVELS else ""
    drawn = min(level, _DRAWN_LEVELS)
    return hidden + ("│  " * (drawn - 1) + "├─ " if is_branch else "│  " * drawn)


def _label(identity: Identity) -> str:
    return " ".join(filter(None, (str(identity.id), identity.tag))) if identity.created else "working VDI"


def _taken(identity: Identity) -> str:
    return text.time(datetime.fromisoformat(identity.created)) if identity.created else "live"


def _say_others(state: State, others: list[Stored]) -> None:
    if not others:
        return
    if state is State.NO_MANIFEST:
        names = ", ".join(each.name for each in others[:_NAMED])
        more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
        say(f"no manifest, so nothing says what it is: {names}{more}")
        return
    for each in others[:_LISTED]:
        of = f" of {each.subject.identity}" if each.subject else ""
        problem = f": {each.problem}" if each.problem else ""
        say(f"{state.value}: {each.name}, {text.size(each.size)}{of}{problem}")
    if len(others) > _LISTED:
        say(f"{state.value}: {len(others) - _LISTED:,} more")


def _total(listing: Listing) -> str:
    catalog = listing.catalog
    if not catalog.backups:
        return f"{catalog.folder}: no backups"
    vdis = len({each.subject.vdi for each in catalog.backups})
    missing = len(listing.missing)
    return (
        f"{catalog.folder}: {text.backups(len(catalog.backups))} of {vdis:,} VDI{'' if vdis == 1 else 's'}, "
        f"{text.size(listing.size)}"
        + (f"; {missing:,} snapshot{' is' if missing == 1 else 's are'} MISSING" if missing else "")
    )
