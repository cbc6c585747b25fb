"""The command line: a module a verb; the only room that prints, and where errors become exit codes."""

from asyncbackup.cli.main import main

__all__ = ["main"]
