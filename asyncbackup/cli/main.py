"""The entry point: finds the verb, and turns every outcome into an exit code and at most one message."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from asyncbackup import __version__
from asyncbackup.cli.advice import with_advice
from asyncbackup.cli.exits import ExitCode, exit_code
from asyncbackup.cli.running import Interrupted
from asyncbackup.errors import AsyncBackupError

_VERBS: Final = {
    "backup": "Back up a snapshot of a VDI, or its difference to an older one.",
    "convert": "Write a backup in the other format, or for Ceph's rbd import-diff.",
    "demo": "Show an incremental backup being made, against a cluster of its own.",
    "export": "Make a raw image of a backup and its increments, or roll one forward.",
    "info": "Tell what a backup file is.",
    "merge": "Make one backup of a backup and its increments.",
    "restore": "Make a new VDI of a backup and its increments.",
    "sheep": "Run the embedded server: a cluster of one node.",
    "verify": "Prove that backups are good, and that a cluster has what they hold.",
    "vdi": "Show the VDIs of a cluster and their snapshots.",
}

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Verbs(click.Group):
    """Imports a verb's module when it is called: what one verb needs does not delay another."""

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


@click.group(cls=_Verbs, context_settings=CONTEXT, no_args_is_help=False)
@click.version_option(__version__, prog_name="asyncbackup")
def program() -> None:
    """Back up the volumes (VDIs) of Sheepdog storage clusters: fast, and never half."""


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    # numpy brings threads for linear algebra, which we have none of, and which spin for a while after its import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and give its exit code."""
    try:
        outcome = program.main(list(arguments), prog_name="asyncbackup", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, Interrupted) as error:
        _complain(str(error) or "interrupted")
        return error.exit_code if isinstance(error, Interrupted) else ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SYSTEM_FAILURE
    except AsyncBackupError as error:
        _complain(with_advice(error))
        return exit_code(error)
    # What click.exceptions.Exit was raised with; a verb that returns has nothing to say.
    return ExitCode(outcome or ExitCode.OK)


def _complain(message: str) -> None:
    print(f"asyncbackup: {message}", file=sys.stderr)
