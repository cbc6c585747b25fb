"""Says which command goes on with what an interrupted one left."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import click

from asyncbackup.cli.main import Verb
from asyncbackup.errors import ClusterError, SourceUnreadable, TargetFull, TargetWriteFailed

_OF_THE_MOMENT = (ClusterError, SourceUnreadable, TargetFull, TargetWriteFailed)
"""Errors after which the same command may do better. Others want another one as likely as not."""


class ResumableVerb(Verb):
    """A verb that has --resume, and remembers what was typed."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.obj = tuple(arguments)
        return super().parse_args(context, arguments)


def command_that_resumes() -> str:
    """Give the command that was typed, with --resume."""
    context = click.get_current_context()
    typed: tuple[str, ...] = context.obj
    resume = () if "--resume" in typed else ("--resume",)
    return shlex.join(["asyncbackup", str(context.info_name), *resume, *typed])


@asynccontextmanager
async def telling_how_to_go_on(is_kept: Callable[[], bool], command: str) -> AsyncIterator[None]:
    """Add to what ends the block early that ``command`` goes on with what stays, if anything does."""
    try:
        yield
    except BaseException as error:
        if (not isinstance(error, Exception) or isinstance(error, _OF_THE_MOMENT)) and is_kept():
            error.add_note(f"what was written stays: `{command}` goes on with it")
        raise
