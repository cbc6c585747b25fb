"""The judge of bases: a table of what is taken, what is refused, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asyncbackup.engine.base import Candidate, Lineage, Wanted, judge_base, judge_compared, judge_image
from asyncbackup.errors import BaseUnproved, Relation, WrongSnapshot
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import ImageState

CLUSTER = "2025-01-02T03:04:05.000000006Z"
BASE = Identity("disk", "a6c1f0", "2026-11-24T03:00:00.000000001Z", CLUSTER, 3, "monday")
SIZE = 8 << 20
WANTED = Wanted("tuesday.inc", BASE, SIZE)
UNKNOWN = Wanted("tuesday.inc", None, None)
PROVED = Candidate("standby.img", SIZE, BASE)
DOUBTED = Candidate("standby.img", SIZE, None, "it has no state")

OTHERS = {
    "another VDI": replace(BASE, vdi="other"),
    "another vdi id": replace(BASE, vdi_id="a6c1f1"),
    "a nanosecond later": replace(BASE, created="2026-11-24T03:00:00.000000002Z"),
    "the working VDI": replace(BASE, created=None),
    "another cluster": replace(BASE, cluster="2025-01-02T03:04:05.000000007Z"),
}
other = pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
either_way = pytest.mark.parametrize("assume_base", [False, True], ids=["", "assumed"])


@either_way
@pytest.mark.parametrize(
    "identity",
    [BASE, replace(BASE, id=9, tag="renamed"), replace(BASE, cluster=None)],
    ids=["the same", "of another name", "of an unknown cluster"],
)
def test_the_base_itself_is_proved(identity: Identity, *, assume_base: bool) -> None:
    assert judge_base(WANTED, replace(PROVED, identity=identity), assume_base=assume_base) is None


@other
@either_way
def test_another_base_is_refused_whoever_vouches_for_it(other: Identity, *, assume_base: bool) -> None:
    with pytest.raises(WrongSnapshot) as refused:
        judge_base(WANTED, replace(PROVED, identity=other), assume_base=assume_base)

    assert (refused.value.expected, refused.value.got) == (BASE, other)
    assert (refused.value.source, refused.value.name) == ("tuesday.inc", "standby.img")
    assert refused.value.relation is Relation.BASE
    assert str(BASE) in str(refused.value)
    assert str(other) in str(refused.value)


@either_way
@pytest.mark.parametrize("candidate", [PROVED, DOUBTED], ids=["proved", "doubted"])
@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_base_of_another_size_is_refused(candidate: Candidate, size: int, *, assume_base: bool) -> None:
    with pytest.raises(WrongSnapshot, match=f"expected {SIZE} bytes, got {size}"):
        judge_base(WANTED, replace(candidate, size=size), assume_base=assume_base)


@pytest.mark.parametrize(
    ("wanted", "candidate", "doubt"),
    [
        (WANTED, DOUBTED, "it has no state"),
        (UNKNOWN, PROVED, "tuesday.inc has no manifest"),
        (UNKNOWN, DOUBTED, "it has no state"),
    ],
    ids=["image", "chain", "both"],
)
def test_what_nothing_proves_is_taken_only_from_somebody_who_vouches_for_it(
    wanted: Wanted, candidate: Candidate, doubt: str
) -> None:
    with pytest.raises(BaseUnproved, match=f"nothing proves that standby.img is .* tuesday.inc .*{doubt}"):
        judge_base(wanted, candidate, assume_base=False)

    assumed = judge_base(wanted, candidate, assume_base=True)

    assert assumed is not None
    assert "standby.img" in assumed
    assert doubt in assumed


def test_an_assumption_is_passed_on() -> None:
    assumed = judge_base(WANTED, replace(PROVED, assumed=True), assume_base=False)

    assert assumed == "standby.img was made on a base that was assumed"


STATE = ImageState(BASE, SIZE, 1_764_032_000_012_345_678, assumed=False)


def test_an_image_is_what_its_state_says() -> None:
    assert judge_image("standby.img", SIZE, STATE.modified_ns, STATE) == PROVED
    assert judge_image("standby.img", SIZE, STATE.modified_ns, replace(STATE, assumed=True)).assumed


@pytest.mark.parametrize(
    ("size", "modified_ns", "state", "doubt"),
    [
        (SIZE, STATE.modified_ns, None, "no state beside it"),
        (SIZE + 1, STATE.modified_ns, STATE, "written after it was snapshot 3 'monday'"),
        (SIZE, STATE.modified_ns + 1, STATE, "written after it was snapshot 3 'monday'"),
        (SIZE, STATE.modified_ns - 1, STATE, "written after it was snapshot 3 'monday'"),
    ],
    ids=["none", "longer", "later", "earlier"],
)
def test_an_image_that_nothing_current_speaks_of_is_nothing_known(
    size: int, modified_ns: int, state: ImageState | None, doubt: str
) -> None:
    described = judge_image("standby.img", size, modified_ns, state)

    assert described.identity is None
    assert doubt in described.doubt


@either_way
@pytest.mark.parametrize("wanted", [WANTED, UNKNOWN], ids=["known", "unknown"])
def test_the_snapshot_that_was_backed_up_may_be_compared(wanted: Wanted, *, assume_base: bool) -> None:
    assert judge_compared(wanted, PROVED, assume_base=assume_base) is None


@either_way
@pytest.mark.parametrize("identity", [BASE, OTHERS["another VDI"], None], ids=["same", "another", "unknown"])
def test_a_vdi_of_another_size_holds_something_else(identity: Identity | None, *, assume_base: bool) -> None:
    candidate = replace(PROVED, identity=identity, size=SIZE + 512)

    with pytest.raises(WrongSnapshot) as refused:
        judge_compared(WANTED, candidate, assume_base=assume_base)

    told_by_identity = identity is not None and identity != BASE and not assume_base
    assert refused.value.relation is Relation.CONTENT
    assert refused.value.got == (identity if told_by_identity else SIZE + 512)


def test_another_snapshot_of_the_vdi_is_not_compared_whoever_vouches_for_it() -> None:
    for name in ("another vdi id", "a nanosecond later"):
        with pytest.raises(WrongSnapshot) as refused:
            judge_compared(WANTED, replace(PROVED, identity=OTHERS[name]), assume_base=True)
        assert not refused.value.can_be_assumed
        assert (refused.value.expected, refused.value.got) == (BASE, OTHERS[name])


@pytest.mark.parametrize("name", ["another VDI", "the working VDI", "another cluster"])
def test_a_vdi_that_may_have_been_restored_is_compared_if_somebody_vouches_for_it(name: str) -> None:
    candidate = replace(PROVED, identity=OTHERS[name])

    with pytest.raises(WrongSnapshot) as refused:
        judge_compared(WANTED, candidate, assume_base=False)
    assumed = judge_compared(WANTED, candidate, assume_base=True)

    assert refused.value.can_be_assumed
    assert assumed is not None
    assert str(OTHERS[name]) in assumed


# What was restored

REPLICA = Identity("replica", "b7d2e1", "2026-11-25T03:00:00.000000001Z", "2025-06-07T08:09:10.000000011Z", 1, "tue")
RESTORED = Candidate("VDI 'replica' snapshot 1", SIZE, REPLICA, lineage=Lineage(BASE))
WRITTEN = replace(RESTORED, lineage=Lineage(BASE, "it may have been written to"))


@either_way
def test_what_was_restored_as_the_base_is_proved(*, assume_base: bool) -> None:
    assert judge_base(WANTED, RESTORED, assume_base=assume_base) is None


def test_what_was_assumed_then_stays_assumed() -> None:
    candidate = replace(RESTORED, lineage=Lineage(BASE, assumed=True))

    expected = "VDI 'replica' snapshot 1 was made on a base that was assumed"
    assert judge_base(WANTED, candidate, assume_base=False) == expected
    assert judge_compared(WANTED, candidate, assume_base=False) == expected


def test_what_may_have_been_written_to_since_is_a_base_only_if_somebody_vouches_for_it() -> None:
    with pytest.raises(BaseUnproved, match="it may have been written to"):
        judge_base(WANTED, WRITTEN, assume_base=False)

    assumed = judge_base(WANTED, WRITTEN, assume_base=True)
    assert assumed is not None
    assert "although it may have been written to" in assumed


@other
@either_way
def test_what_was_restored_as_another_snapshot_is_refused(other: Identity, *, assume_base: bool) -> None:
    with pytest.raises(WrongSnapshot) as refused:
        judge_base(WANTED, replace(RESTORED, lineage=Lineage(other)), assume_base=assume_base)

    assert (refused.value.expected, refused.value.got) == (BASE, other)


@either_way
def test_what_was_restored_is_refused_where_it_has_another_size(*, assume_base: bool) -> None:
    with pytest.raises(WrongSnapshot, match=f"expected {SIZE} bytes, got {SIZE + 1}"):
        judge_base(WANTED, replace(RESTORED, size=SIZE + 1), assume_base=assume_base)
    with pytest.raises(WrongSnapshot, match=f"expected {SIZE} bytes, got {SIZE + 1}"):
        judge_compared(WANTED, replace(RESTORED, size=SIZE + 1), assume_base=assume_base)


@pytest.mark.parametrize("candidate", [RESTORED, WRITTEN], ids=["proved", "perhaps written to"])
def test_what_was_restored_is_compared_without_anybody_who_vouches_for_it(candidate: Candidate) -> None:
    assert judge_compared(WANTED, candidate, assume_base=False) is None


def test_a_candidate_equals_what_it_is_and_what_it_was_restored_as() -> None:
    assert RESTORED.equals(REPLICA)
    assert RESTORED.equals(BASE)
    assert not RESTORED.equals(replace(BASE, vdi="other"))
    assert not DOUBTED.equals(BASE)
