"""Shows what the parts of the program log, as lines on standard error."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime

from asyncbackup.cli.output import CannotPrint, say


class _Lines(logging.Handler):
    """Prints each record as a line: the time, the package that says it, and what it says."""

    def emit(self, record: logging.LogRecord) -> None:
        moment = datetime.fromtimestamp(record.created).astimezone().isoformat(sep=" ", timespec="milliseconds")
        package = ".".join(record.name.split(".")[1:2]) or record.name
        with suppress(CannotPrint):
            say(f"{moment} {package}: {record.getMessage()}", err=True)


def show_log_lines() -> None:
    """Print what is logged from now on."""
    logger = logging.getLogger("asyncbackup")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
