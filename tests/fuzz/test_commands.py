"""Whatever is typed, it ends with a documented exit code and a message, in time, and harms no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings

from tests.fuzz import commands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def check() -> Iterator[Callable[[commands.Case], None]]:
    with commands.open_check() as opened:
        yield opened


@settings(max_examples=60)
@given(case=commands.cases)
def test_a_hostile_command_line(check: Callable[[commands.Case], None], case: commands.Case) -> None:
    check(case)
