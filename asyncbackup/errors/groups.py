"""Which error of a group stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asyncbackup.errors.cluster import LeftUnfinished


@contextmanager
def single_error() -> Iterator[None]:
    """Raise the first error of an exception group instead of the group: the first failure caused the others."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = first_error(group)
        raise error from error.__cause__


def first_error(error: BaseException) -> BaseException:
    """Give the first error of a group, or ``error`` itself. One that says what was left goes before what caused it."""
    errors = list(_flatten(error))
    return next((each for each in errors if isinstance(each, LeftUnfinished)), errors[0])


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flatten(each)
    else:
        yield error
