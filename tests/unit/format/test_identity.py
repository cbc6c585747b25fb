from __future__ import annotations

from dataclasses import replace

import pytest

from asyncbackup.format.identity import Identity, time_text

ONE = Identity("vm", "abcdef", "2026-11-22T20:00:00.000000001Z", "2026-01-01T00:00:00.000000000Z", 2, "b")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (ONE, True),
        (replace(ONE, cluster=None), True),
        (replace(ONE, id=3, tag="renamed"), True),
        (replace(ONE, cluster="2026-01-01T00:00:00.000000001Z"), False),
        (replace(ONE, vdi="vm2"), False),
        (replace(ONE, vdi_id="abcdee"), False),
        (replace(ONE, created="2026-11-22T20:00:00.000000002Z"), False),
        (replace(ONE, created=None), False),
    ],
)
def test_a_snapshot_is_told_from_all_others(other: Identity, *, expected: bool) -> None:
    assert ONE.matches(other) is expected
    assert other.matches(ONE) is expected


def test_an_identity_is_named_with_all_that_tells_it() -> None:
    assert str(ONE) == (
        "snapshot 2 'b' of VDI 'vm' (vdi id abcdef, created 2026-11-22T20:00:00.000000001Z, "
        "in the cluster formatted 2026-01-01T00:00:00.000000000Z)"
    )
    assert str(replace(ONE, tag="", cluster=None)).startswith("snapshot 2 of VDI 'vm' (vdi id abcdef, created 2026")
    assert str(replace(ONE, created=None, cluster=None)) == (
        "the working VDI of VDI 'vm' (vdi id abcdef, created not yet)"
    )


def test_times_are_exact() -> None:
    assert time_text(1 << 32 | 5) == "1970-01-01T00:00:01.000000005Z"
    assert time_text((1 << 32) - 1 << 32 | 999_999_999) == "2106-02-07T06:28:15.999999999Z"
    assert time_text(0) is None


def test_a_second_has_no_more_nanoseconds_than_it_has() -> None:
    with pytest.raises(ValueError, match=r"expected less than 10\^9 nanoseconds, got 1000000000"):
        time_text(1 << 32 | 10**9)


@pytest.mark.parametrize("time", [1, 1 << 32, (1 << 64) - (1 << 32) | 999_999_999])
def test_all_times_that_an_inode_can_hold_are_taken(time: int) -> None:
    assert replace(ONE, created=time_text(time)).created == time_text(time)
