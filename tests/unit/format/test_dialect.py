from __future__ import annotations

import pytest

from asyncbackup.format import Dialect


def test_golden_collie_file_without_records() -> None:
    assert Dialect.COLLIE.opening == bytes(16)
    assert Dialect.COLLIE.ending == b""
    assert Dialect.COLLIE.patch(3).hex(" ", 4) == "01000000 92119211 03000000 00000000"


def test_golden_dog_file_without_records() -> None:
    assert Dialect.DOG.opening.hex(" ", 4) == "01000000 92119211"
    assert Dialect.DOG.ending.hex(" ", 4) == "ffffffff 00000000 00000000 00000000"
    assert Dialect.DOG.patch(3) == b""


def test_only_collie_needs_to_seek() -> None:
    assert Dialect.COLLIE.needs_patch
    assert not Dialect.DOG.needs_patch


@pytest.mark.parametrize("dialect", list(Dialect))
def test_the_patch_fits_over_the_opening(dialect: Dialect) -> None:
    assert len(dialect.patch(1)) in (0, len(dialect.opening))
