"""The progress bar: on standard error, and only where that is a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from asyncbackup.cli import text
from asyncbackup.cli.output import is_terminal, visible, width
from asyncbackup.engine.progress import OnProgress, Progress

_NAME_WIDTH: Final = 24
_CUT: Final = "..."
_BAR_WIDTH: Final = 16
"""Columns of the name and of the bar. With amounts and times, the line fits in 80."""


@contextmanager
def progress_bar(name: str, *, wanted: bool) -> Iterator[OnProgress | None]:
    """Show a bar, labelled ``name``, during the block. Give the function that updates it, or None without a bar.

    The bar shows how much of the total is done, or only how much is done if the total is not known.
    """
    if not (wanted and is_terminal(err=True)):
        yield None
        return
    from rich import progress as rich  # noqa: PLC0415 - rich costs a quarter of the start-up, and few starts need it
    from rich.console import Console  # noqa: PLC0415 - as above

    shown = shorten(name)
    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(_BAR_WIDTH),
        rich.TextColumn("{task.fields[amounts]}", markup=False),
        rich.TextColumn("ETA"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(shown, total=None, amounts="")
        was_checking, started = False, time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal was_checking, started
            if progress.is_checking != was_checking:
                was_checking, started = progress.is_checking, time.monotonic()
                bar.reset(task, total=None, description=f"checking {shown}" if was_checking else shown)
            in_bytes = progress.bytes_planned is not None
            bar.update(
                task,
                total=progress.bytes_planned if in_bytes else progress.objects_planned,
                completed=progress.bytes_done if in_bytes else progress.objects_done,
                amounts=amounts(progress, time.monotonic() - started),
            )

        yield tell


def amounts(progress: Progress, elapsed_s: float) -> str:
    """Say how much is done, of how much if that is known, and how fast."""
    rate = text.rate(progress.bytes_done, elapsed_s)
    if progress.bytes_planned is not None:
        return f"{text.size(progress.bytes_done)} of {text.size(progress.bytes_planned)}, {rate}"
    objects = text.objects(progress.objects_done)
    if progress.objects_planned is not None:
        objects = f"{progress.objects_done:,} of {text.objects(progress.objects_planned)}"
    return f"{objects}, {rate}" if progress.bytes_done else objects


def name_files(files: tuple[str, ...]) -> str:
    """Name files in a few words."""
    first = name_target(Path(files[0]).name)
    return first if len(files) == 1 else f"{first} and {len(files) - 1} more"


def name_target(file: str) -> str:
    """Name a target by the last part of its path."""
    return text.target(file) if file == "-" else Path(file).name or file


def shorten(name: str) -> str:
    """Give ``name`` in the form that stands beside a bar."""
    name = visible(name)
    if width(name) <= _NAME_WIDTH:
        return name
    while width(name) > _NAME_WIDTH - len(_CUT):
        name = name[:-1]
    return name + _CUT
