"""Progress on standard error: a bar where that is a terminal, and otherwise a line each minute."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from asyncbackup.cli import text
from asyncbackup.cli.output import is_terminal, visible, width
from asyncbackup.engine.progress import OnProgress, Progress

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]
"""Calls a function in so many seconds, as an event loop does."""

_MODE: Final = "asyncbackup.progress"
_EVERY_S: Final = 60.0
"""Seconds between two lines of progress: a night's log stays short."""
_NAME_WIDTH: Final = 24
_CUT: Final = "..."
_BAR_WIDTH: Final = 16
"""Columns of the name and of the bar. With amounts and times, the line fits in 80."""


@asynccontextmanager
async def telling_progress(name: str, *, wanted: bool) -> AsyncIterator[OnProgress]:
    """Tell how far the work of the block is, labelled ``name``. Give the function that takes progress.

    How is said by --progress: with a bar, with a line each minute, or not at all. SIGUSR1 prints a line in any case.
    Without ``wanted`` there is nothing but that.
    """
    mode = click.get_current_context().meta.get(_MODE, "auto")
    if mode == "auto":
        mode = "bar" if is_terminal(err=True) else "lines"
    lines = Lines(name)
    with ExitStack() as stack:
        stack.enter_context(lines.printed_at_signal())
        if wanted and mode == "lines":
            stack.enter_context(lines.printed_each(_EVERY_S, asyncio.get_running_loop().call_later))
        show = stack.enter_context(_bar(name)) if wanted and mode == "bar" else None

        def tell(progress: Progress) -> None:
            lines.tell(progress)
            if show is not None:
                show(progress)

        yield tell


def progress_option(function: _Function) -> _Function:
    """Add --progress, which ``telling_progress`` heeds."""
    return click.option(
        "--progress",
        type=click.Choice(["auto", "bar", "lines", "none"]),
        default="auto",
        show_default=True,
        expose_value=False,
        callback=_keep_mode,
        help="Show progress as a bar or, each minute, as a line. auto: a bar if standard error is a terminal, and "
        "lines otherwise. SIGUSR1 prints a line in any case.",
    )(function)


def _keep_mode(context: click.Context, _param: click.Parameter, value: str) -> None:
    context.meta[_MODE] = value


class Lines:
    """Prints progress as lines: every so many seconds, and when SIGUSR1 comes."""

    def __init__(self, name: str) -> None:
        self._name = shorten(name)
        self._progress = Progress(0, None, 0)
        self._begun_s = time.monotonic()

    def tell(self, progress: Progress) -> None:
        """Take note of progress."""
        if progress.is_checking != self._progress.is_checking:
            self._begun_s = time.monotonic()
        self._progress = progress

    @contextmanager
    def printed_each(self, every_s: float, call_later: _CallLater) -> Iterator[None]:
        """Print a line every ``every_s`` seconds during the block, also while nothing is done."""
        timer: asyncio.TimerHandle

        # No task: who waits for one to end loses what a cancellation of the work said about what stays.
        def print_and_go_on() -> None:
            nonlocal timer
            timer = call_later(every_s, print_and_go_on)
            self._print()

        timer = call_later(every_s, print_and_go_on)
        try:
            yield
        finally:
            timer.cancel()

    def _print(self) -> None:
        elapsed_s = time.monotonic() - self._begun_s
        what = f"checking {self._name}" if self._progress.is_checking else self._name
        line = f"{what}: {amounts(self._progress, elapsed_s)}, {elapsed_s:.0f} s\n"
        # A signal may come while a line is printed: the stream must not be entered twice.
        with suppress(OSError):
            os.write(2, line.encode(errors="backslashreplace"))

    @contextmanager
    def printed_at_signal(self) -> Iterator[None]:
        """Print a line whenever SIGUSR1 comes during the block."""
        before = signal.signal(signal.SIGUSR1, lambda _number, _frame: self._print())
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, before)


@contextmanager
def _bar(name: str) -> Iterator[OnProgress]:
    """Show a bar during the block. It shows how much of the total is done, or only how much if there is no total."""
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
