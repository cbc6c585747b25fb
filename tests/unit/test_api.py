"""What ``import asyncbackup`` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import asyncbackup


@pytest.mark.parametrize("name", asyncbackup.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(asyncbackup, name).__name__ == name


def test_every_name_that_has_a_home_is_public() -> None:
    assert sorted(asyncbackup._HOMES) == asyncbackup.__all__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'asyncbackup' has no attribute 'nonsense'"):
        _ = asyncbackup.nonsense


def test_importing_the_package_imports_none_of_it() -> None:
    script = "import asyncbackup, sys; sys.exit('numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
