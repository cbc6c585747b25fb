"""The entry point: finds the verb, and turns every outcome into an exit code and at most one message."""

from __future__ import annotations

import ast
import asyncio
import importlib
import math
import os
import re
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import click
from click.shell_completion import shell_complete

from asyncbackup import __version__
from asyncbackup.cli.advice import MORE_FILES, TOO_MANY_FILES, with_advice
from asyncbackup.cli.exits import ExitCode, exit_code
from asyncbackup.cli.log_lines import show_log_lines
from asyncbackup.cli.output import CannotPrint, complain, say, say_json
from asyncbackup.cli.running import Interrupted
from asyncbackup.errors import AsyncBackupError, single_error

_VERBS: Final = {
    "backup": "Back up a snapshot of a VDI, or what changed since an older one.",
    "bench": "Measure how fast backups are here, and what bounds them.",
    "convert": "Write a backup in another format, such as for `rbd import-diff`.",
    "demo": "Show how an incremental backup is made, on a cluster of its own.",
    "export": "Make a raw image from backups, or apply increments to one.",
    "info": "Show what a backup file is.",
    "join": "Make the backup out of pieces that several machines made.",
    "list": "List the backups in a folder, and what goes on what.",
    "merge": "Make one backup out of a backup and its increments.",
    "restore": "Make a new VDI from a backup and its increments.",
    "sheep": "Run the embedded server, a cluster of one node.",
    "verify": "Prove that backups are good, and compare them with a cluster.",
    "vdi": "Show the VDIs of a cluster and their snapshots.",
}

_NAME: Final = "asyncbackup"
_COMPLETION: Final = "_ASYNCBACKUP_COMPLETE"
"""The variable that a shell sets to ask for completions. Its name comes from click."""

_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
"""A text as repr() writes it."""

_LONGEST: Final = 300
"""Characters of an exception, or of a command line, to show."""

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _say_help(context: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - called by click
    if value and not context.resilient_parsing:
        say(*context.get_help().split("\n"))
        context.exit()


def _show_log_lines(context: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - called by click
    if value and not context.resilient_parsing:
        show_log_lines()


def _say_version(context: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - called by click
    if value and not context.resilient_parsing:
        say(f"{_NAME}, version {__version__}")
        context.exit()


class Verb(click.Command):
    """A command with -v that remembers what was typed. Its help goes through ``say`` and ends with ``examples``."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples
        if not isinstance(self, click.Group):
            self.params.append(
                click.Option(
                    ["-v", "--verbose"],
                    is_flag=True,
                    expose_value=False,
                    callback=_show_log_lines,
                    help="Say on standard error what happens, with times: checkpoints, files, trouble with nodes.",
                )
            )

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.obj = tuple(arguments)
        return super().parse_args(context, list(self._complete(arguments)))

    def _complete(self, arguments: Sequence[str]) -> Iterator[str]:
        """Give an option that can do without a value the one that it has then. What follows it is another argument."""
        usual = {
            name: param.flag_value
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag and isinstance(param.flag_value, str)
            for name in param.opts
        }
        options = arguments.index("--") if "--" in arguments else len(arguments)
        for place, argument in enumerate(arguments):
            yield f"{argument}={usual[argument]}" if place < options and argument in usual else argument

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                indent = " " * formatter.current_indent
                formatter.write("".join(f"{indent}{example}\n" for example in self.examples))
        super().format_epilog(context, formatter)

    def get_help_option(self, context: click.Context) -> click.Option | None:
        option = super().get_help_option(context)
        if option is not None:
            option.callback = _say_help
        return option


def typed_command(*more: str) -> str:
    """Give the command that was typed, with ``more`` behind the verb."""
    context = click.get_current_context()
    return shlex.join([_NAME, str(context.info_name), *more, *context.obj])


class VerbGroup(Verb, click.Group):
    """A group of verbs. Without a verb it prints its help and fails, so that a script that forgot the verb fails."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if not arguments and not context.resilient_parsing:
            say(*context.get_help().split("\n"))
            context.exit(ExitCode.USAGE)
        return super().parse_args(context, arguments)


class _Verbs(VerbGroup):
    """Imports the module of a verb only when the verb is called, so that no verb delays another."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"asyncbackup.cli.{name}").command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings=CONTEXT,
    examples=["asyncbackup vdi list -a sheep1", "asyncbackup backup -s monday -a sheep1 vm1 /backup/vm1.monday"],
)
@click.option(
    "--debug",
    is_flag=True,
    envvar="ASYNCBACKUP_DEBUG",
    help="Show a traceback if this program fails with a bug.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="Show the version and exit.",
)
def program(*, debug: bool) -> None:
    """Back up the volumes (VDIs) of Sheepdog storage clusters, prove the backups, and restore them.

    `asyncbackup COMMAND -h` explains a command.
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command line and give its exit code."""
    if asked := os.environ.get(_COMPLETION):
        return shell_complete(program, {}, _NAME, _COMPLETION, asked)
    code: int = ExitCode.OK
    context: click.Context | None = None
    try:
        with program.make_context(_NAME, list(arguments)) as context, single_error():
            program.invoke(context)
    except click.exceptions.Exit as asked_for:
        code = asked_for.exit_code
    except click.UsageError as error:
        code = _tell_usage(error)
        _tell_as_json(error, error.format_message(), code, arguments)
    except CannotPrint as error:
        code = _tell_unprinted(error)
    except Interrupted as error:
        code = error.exit_code
        complain(str(error))
        _tell_as_json(error, str(error), code, arguments)
    except AsyncBackupError as error:
        code = exit_code(error)
        complain("; ".join([with_advice(error), *getattr(error, "__notes__", ())]))
        _tell_as_json(error, with_advice(error), code, arguments)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, people get one line
        code = _tell_unexpected(error, arguments, debug=context is not None and context.params["debug"])
        _tell_as_json(error, str(error), code, arguments)
    return code


def _tell_as_json(error: BaseException, message: str, code: int, arguments: Sequence[str]) -> None:
    """Say to a program what went wrong, if an option asks for JSON. Values that JSON does not have are left out."""
    typed = list(arguments)
    options = typed[: typed.index("--")] if "--" in typed else typed
    if "--json" not in options:
        return
    fields = {} if isinstance(error, click.ClickException) else vars(error)
    report = {
        "kind": type(error).__name__,
        "message": message,
        "fields": {name: value for name, value in fields.items() if not name.startswith("_") and _is_plain(value)},
        "exit_code": int(code),
    }
    with suppress(CannotPrint):
        # Where data goes to standard output, the report goes to standard error; so does this.
        say_json({"error": report}, err="-" in typed)


def _is_plain(value: object) -> bool:
    """Tell whether JSON has such values."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _tell_usage(error: click.UsageError) -> ExitCode:
    message = error.format_message()
    if _is_of_click(error):
        message = _QUOTED.sub(_unescape, message)
    if isinstance(error, click.MissingParameter):
        # click puts each choice of an option on its own line.
        message = " ".join(message.split())
    lines = [f"Error: {message}"]
    if error.ctx is not None:
        hint = f"Try '{error.ctx.command_path} --help' for help."
        lines = [*error.ctx.get_usage().split("\n"), hint, "", *lines]
    with suppress(CannotPrint):
        say(*lines, err=True)
    return ExitCode.USAGE


def _is_of_click(error: BaseException) -> bool:
    """Tell whether click wrote the message: its own types and parsers raised ``error``, not one of ours."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name != "fail"]
    return bool(frames) and frames[-1].f_globals["__name__"].startswith("click.")


def _unescape(quoted: re.Match[str]) -> str:
    # click shows what was typed as repr() does; say() would escape it again.
    return f"'{ast.literal_eval(quoted[0])}'"


def _tell_unprinted(error: CannotPrint) -> ExitCode:
    # A reader who closes a listing early has seen enough. A missing report is an error.
    if error.done or not isinstance(error.__cause__, BrokenPipeError):
        complain(str(error))
    return ExitCode.SYSTEM_FAILURE


def _tell_unexpected(error: BaseException, arguments: Sequence[str], *, debug: bool) -> ExitCode:
    if debug:
        with suppress(CannotPrint):
            say(*"".join(traceback.format_exception(error)).split("\n"), err=True)
    if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
        complain(f"{error.strerror}; {MORE_FILES}")
        return ExitCode.SYSTEM_FAILURE
    what = ": ".join(filter(None, (type(error).__name__, _shorten(str(error)))))
    command = _shorten(shlex.join([_NAME, *arguments]))
    advice = "" if debug else f"; `{_NAME} --debug ...` shows where it is"
    complain(f"{what}; this is a bug of {_NAME}: please report it with version {__version__} and `{command}`{advice}")
    return ExitCode.BUG


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
