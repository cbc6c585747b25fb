"""Whatever bytes are given for a backup, they are read, or refused with a documented error, in little memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.fuzz import reading

pytestmark = pytest.mark.slow


@settings(max_examples=100)
@given(reading.cases)
def test_hostile_files(case: reading.Case) -> None:
    reading.check(case)
