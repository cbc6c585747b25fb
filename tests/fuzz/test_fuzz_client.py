"""Whatever a server answers, the client comes to an end with a result or a documented error, and leaves nothing."""

from __future__ import annotations

from hypothesis import given, settings

from tests.fuzz import client


@settings(max_examples=60)
@given(client.cases)
def test_a_hostile_server(case: client.Case) -> None:
    client.check(case)
