"""The progress bar: on standard error, and only where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asyncbackup.cli import text
from asyncbackup.cli.output import is_terminal
from asyncbackup.engine.progress import OnReplay, ReplayProgress

Show = Callable[[int, int, int], None]
"""Shows where the work stands: units done, units in all, bytes moved so far."""


@contextmanager
def progress_bar(unit: str, *, wanted: bool) -> Iterator[Show | None]:
    """Show a bar meanwhile, counted in ``unit``; give what keeps it up to date, or None where there is no bar."""
    if not (wanted and is_terminal(err=True)):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - rich costs a quarter of the start-up, and few starts need it
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - as above

    columns = (
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TextColumn("{task.fields[amounts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1, amounts="")

        def show(done: int, total: int, moved: int) -> None:
            rate = moved / max(bar.tasks[0].elapsed or 0, 1e-6)
            bar.update(task, total=total, completed=done, amounts=f"{text.size(moved)}, {text.size(rate)}/s")

        yield show


@contextmanager
def replay_bar(*, wanted: bool) -> Iterator[OnReplay]:
    """Show a bar while a chain of backups is gone through; give what is to be told of it."""
    with progress_bar("objects", wanted=wanted) as show:

        def tell(progress: ReplayProgress) -> None:
            if show is not None:
                planned = progress.objects_done if progress.objects_planned is None else progress.objects_planned
                show(progress.objects_done, planned, progress.bytes_written)

        yield tell
