"""``asyncbackup info``."""

from __future__ import annotations

import json
from datetime import datetime

import click

from asyncbackup.cli import text
from asyncbackup.cli.access_options import access_options
from asyncbackup.cli.advice import JOIN
from asyncbackup.cli.files import leave_out
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import PATH, check_manifests, file_options, json_option
from asyncbackup.cli.output import say, say_json_text
from asyncbackup.cli.running import run_async
from asyncbackup.engine.reader import Record
from asyncbackup.format import Dialect
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import Access
from asyncbackup.verbs.info import Info, info


@click.command("info", cls=Verb, context_settings=CONTEXT, examples=["asyncbackup info /backup/vm1.monday"])
@click.argument("file", type=PATH)
@click.option(
    "--records",
    "with_records",
    is_flag=True,
    help="List each record: its object, and where in the object its data goes.",
)
@access_options
@file_options
@json_option
def command(
    *,
    file: str,
    with_records: bool,
    manifests: tuple[str, ...],
    access: Access,
    dialect: Dialect | None,
    object_size: int | None,
    as_json: bool,
) -> None:
    """Show what the backup FILE is: its format, how much it holds, and which snapshot it is of.

    The data itself is not read: use `asyncbackup verify` to prove it. FILE `-` is standard input.
    """
    leave_out([file], access=access, quiet=True)
    listing = _JsonListing() if as_json else _TextListing()
    manifest = next(iter(check_manifests(manifests, [file])), None)
    on_record = listing.add if with_records else None
    found = run_async(
        lambda: info(
            file, dialect=dialect, object_size=object_size, manifest=manifest, access=access, on_record=on_record
        ),
        only_reads=True,
    )
    listing.end(found)


class _TextListing:
    def __init__(self) -> None:
        self._empty = True

    async def add(self, record: Record) -> None:
        if self._empty:
            say(f"{'IDX':>10}  {'OFFSET':>10}  {'LENGTH':>10}  XXH3_128 OF DATA")
            self._empty = False
        header, digests = record.header, record.digests
        digest = digests.data if digests else "-"
        say(f"{header.idx:>10}  {header.offset:>10}  {header.length:>10}  {digest}")

    def end(self, found: Info) -> None:
        say(*_report(found))


class _JsonListing:
    """Writes one JSON object in pieces, because a backup may have a million records."""

    def __init__(self) -> None:
        self._empty = True

    async def add(self, record: Record) -> None:
        header, digests = record.header, record.digests
        fields: dict[str, object] = {"idx": header.idx, "offset": header.offset, "length": header.length}
        if digests:
            fields |= {"data": digests.data, "base": digests.base}
        say_json_text(('{"record_list": [' if self._empty else ", ") + json.dumps(fields))
        self._empty = False

    def end(self, found: Info) -> None:
        whole = json.dumps(found.as_dict())
        say_json_text((whole if self._empty else "], " + whole.removeprefix("{")) + "\n")


def _report(found: Info) -> list[str]:
    lines = [
        f"file      {text.source(found.file)}",
        f"format    {found.dialect.value}",
        *([f"layers    {' in '.join(reversed(found.layers))}"] if found.layers else []),
        f"records   {found.records:,}",
        f"data      {text.size(found.data_bytes)} ({found.data_bytes} bytes)",
    ]
    if found.trailing_bytes:
        lines.append(f"trailing  {found.trailing_bytes} bytes that are not part of the backup follow it")
    if found.manifest is None:
        lines.append("manifest  none: nothing says what this is a backup of")
    else:
        lines += _of_manifest(found.manifest)
    if found.missing:
        lines.append(f"missing   {text.missing(found.missing)} could not be read: it is INCOMPLETE")
    return lines


def _of_manifest(subject: Subject) -> list[str]:
    redundancy = f"erasure code 0x{subject.copy_policy:02x}" if subject.copy_policy else f"copies {subject.copies}"
    size, object_size = text.size(subject.size), text.size(subject.object_size)
    piece = subject.piece
    of_whole = [] if piece is None else [f"piece     {piece.number} of {piece.count}, {piece.objects}: {JOIN}"]
    return [
        *of_whole,
        f"vdi       {subject.vdi}, {size} ({subject.size} bytes) in objects of {object_size}, {redundancy}",
        f"of        {subject.identity}",
        f"taken     {_taken(subject.identity)}",
        f"base      {subject.base_identity or 'none: a full backup'}",
    ]


def _taken(of: Identity) -> str:
    """Give the time of a snapshot in the zone of this machine."""
    return text.time(datetime.fromisoformat(of.created)) if of.created else "live, so perhaps of no single moment"
