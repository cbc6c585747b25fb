"""Whatever servers answer, the client comes to an end with a result or a documented error, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings

from tests.fuzz import client

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def check() -> Iterator[Callable[[client.Case], None]]:
    with client.open_check() as opened:
        yield opened


@settings(max_examples=80)
@given(case=client.cases)
def test_hostile_servers(check: Callable[[client.Case], None], case: client.Case) -> None:
    check(case)
