from __future__ import annotations

import pytest

from asyncbackup import errors
from asyncbackup.errors import AsyncBackupError, VdiNotFound, single_error


def leaf(message: str = "leaf") -> ValueError:
    return ValueError(message)


def test_the_first_error_of_a_group_stands_for_it() -> None:
    first = leaf("first")

    with pytest.raises(ValueError, match="first") as caught, single_error():
        raise BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [first]), leaf("second")])

    assert caught.value is first


def test_an_error_from_a_group_keeps_its_cause() -> None:
    cause = RuntimeError("cause")
    error = leaf()
    error.__cause__ = cause

    with pytest.raises(ValueError, match="leaf") as caught, single_error():
        raise BaseExceptionGroup("group", [error])

    assert caught.value.__cause__ is cause


def test_a_single_error_passes() -> None:
    with pytest.raises(ValueError, match="leaf"), single_error():
        raise leaf()


def test_every_expected_error_has_one_root() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]

    assert all(issubclass(kind, AsyncBackupError) for kind in kinds)


def test_the_docstring_draws_every_error() -> None:
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]

    assert errors.__doc__ is not None
    assert [name for name in kinds if name not in errors.__doc__] == []


def test_a_long_listing_is_cut() -> None:
    error = VdiNotFound("vm", [f"vm{number}" for number in range(15)])

    assert str(error).endswith("vm10, vm11 and 3 more")
    assert len(error.existing) == 15
