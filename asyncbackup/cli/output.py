r"""The one place that prints.

Names come from clusters, backups and file systems, and may hold anything, such as sequences that a terminal obeys.
So every line that goes out shows each character that does not print as an escape (``\x1b``, ``\u202e``), and each
backslash as two, so that an escape differs from text that looks like one. A character that the encoding of the stream
lacks is replaced.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TextIO

_IN_ASCII: Final = str.maketrans({"…": "...", "—": "-", "─": "-", "│": "|", "├": "|", "└": "`"})

COMPLETE: Final = "the backup itself is complete"


class CannotPrint(Exception):
    """Standard output or standard error accepts no text; ``done`` says what is complete nevertheless."""

    def __init__(self, where: str, reason: str, done: str | None) -> None:
        super().__init__(f"cannot print to {where}: {reason}" + (f"; {done}" if done else ""))
        self.done = done


def say(*lines: str, err: bool = False, done: str | None = None) -> None:
    """Print ``lines`` to standard output, or with ``err`` to standard error. Without lines, print an empty one.

    ``done`` says what is complete even if the lines cannot be printed. Raises CannotPrint, which repeats it.
    """
    stream = _stream(err=err)
    _write("".join(f"{_shown(line, stream)}\n" for line in lines or ("",)), err=err, done=done)


def say_json(value: object, *, err: bool = False, done: str | None = None) -> None:
    """Print ``value`` as one line of JSON in ASCII. Raises CannotPrint."""
    say_json_text(json.dumps(value, allow_nan=False) + "\n", err=err, done=done)


def say_report(
    values: object,
    lines: Sequence[str],
    *,
    as_json: bool,
    quiet: bool,
    is_good: bool = True,
    err: bool = False,
    done: str | None = None,
) -> None:
    """Print a report: ``values`` as JSON, or else ``lines``, which ``quiet`` leaves out. Raises CannotPrint.

    The first line says what came of it. It is printed last, where a mail from cron or the end of a log shows it.
    """
    if as_json:
        say_json(values, err=err, done=done)
    elif not quiet:
        outcome, *details = lines
        say(*details, f"{'ok' if is_good else 'incomplete'}: {outcome}", err=err, done=done)


def say_json_text(text: str, *, err: bool = False, done: str | None = None) -> None:
    """Print a piece of JSON in ASCII. Raises CannotPrint."""
    assert text.isascii()
    _write(text, err=err, done=done)


def say_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, aligned by the width of each cell in a terminal. Raises CannotPrint."""
    stream = _stream(err=False)
    table = [[_shown(cell, stream) for cell in row] for row in (header, *rows)]
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell + " " * (widest - width(cell)) for cell, widest in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    _write("".join(f"{line}\n" for line in lines), err=False, done=None)


def complain(message: str) -> None:
    """Print ``message``, one line, to standard error. If that fails, only the exit code tells."""
    with suppress(CannotPrint):
        say(f"asyncbackup: {message}", err=True)


def warn(message: str) -> None:
    """Print ``message``, one line, as a warning, if possible."""
    with suppress(CannotPrint):
        say(f"warning: {message}", err=True)


def is_terminal(*, err: bool = False) -> bool:
    """Tell whether standard output, or standard error, is a terminal."""
    return os.isatty(2 if err else 1)


def visible(text: str) -> str:
    """Replace characters that do not print by escapes, and double backslashes."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def width(text: str) -> int:
    """Give the number of columns that ``text`` needs in a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - names are seldom other than ASCII

    return cell_len(text)


def _shown(text: str, stream: TextIO | None) -> str:
    text = visible(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def _stream(*, err: bool) -> TextIO | None:
    """Give the stream, or None if there is none."""
    return sys.stderr if err else sys.stdout  # noqa: TID251 - the one place


def _write(text: str, *, err: bool, done: str | None) -> None:
    stream = _stream(err=err)
    where = "standard error" if err else "standard output"
    if stream is None:
        raise CannotPrint(where, "it is closed", done)
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # What is still in the buffer must not fail again at exit.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a name is all there is
            os.dup2(nowhere.fileno(), stream.fileno())
        raise CannotPrint(where, error.strerror or str(error), done) from error
