"""Says which command goes on with what an interrupted one left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import click

from asyncbackup.cli.main import typed_command
from asyncbackup.errors import ClusterError, SourceUnreadable, TargetFull, TargetWriteFailed

_OF_THE_MOMENT = (ClusterError, SourceUnreadable, TargetFull, TargetWriteFailed)
"""Errors after which the same command may do better. Others want another one as likely as not."""


def command_that_resumes() -> str:
    """Give the command that was typed, with --resume."""
    typed = click.get_current_context().obj
    return typed_command(*(() if "--resume" in typed else ("--resume",)))


@asynccontextmanager
async def telling_how_to_go_on(is_kept: Callable[[], bool], command: str) -> AsyncIterator[None]:
    """Add to what ends the block early that ``command`` goes on with what stays, if anything does."""
    try:
        yield
    except BaseException as error:
        if (not isinstance(error, Exception) or isinstance(error, _OF_THE_MOMENT)) and is_kept():
            error.add_note(f"what was written stays: `{command}` goes on with it")
        raise
