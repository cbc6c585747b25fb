"""The root of all errors, which takes them to other processes."""

from __future__ import annotations

from typing import Any


class AsyncBackupError(Exception):
    """The root: catching it catches every expected failure of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Take message and fields to another process, whatever arguments the class is made with."""
        return _make_again, (type(self), self.args, self.__dict__)


def _make_again(kind: type[AsyncBackupError], args: tuple[Any, ...], fields: dict[str, Any]) -> AsyncBackupError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error
