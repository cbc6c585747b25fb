from __future__ import annotations

import pytest

from asyncbackup.sheep import Fault, FaultScript, faults
from asyncbackup.wire.constants import Opcode, Result

READ = Opcode.READ_OBJ


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("read_obj@3:error=EIO", Fault(faults.Error(Result.EIO), READ, 3)),
        ("READ_OBJ@1:error=0x1a", Fault(faults.Error(Result.READONLY), READ)),
        ("any@10:reset", Fault(faults.Reset(), nth=10)),
        ("read_obj/00abcdef00000007@1+:delay=0.5", Fault(faults.Delay(0.5), READ, onwards=True, oid=0xABCDEF00000007)),
        ("read_obj@2:reorder=4", Fault(faults.Reorder(4), READ, 2)),
        ("read_obj@2:short", Fault(faults.Short(512), READ, 2)),
        ("read_obj@2:short=100", Fault(faults.Short(100), READ, 2)),
        ("read_obj@2:long", Fault(faults.Long(512), READ, 2)),
        ("get_node_list@1:wrong-id", Fault(faults.WrongId(), Opcode.GET_NODE_LIST)),
        ("any@1:cut=0", Fault(faults.Cut(0))),
        ("any@1:garbage=64", Fault(faults.Garbage(64))),
        (" any@1:stall ", Fault(faults.Stall())),
    ],
)
def test_a_fault_is_read_from_text(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a fault such as"),
        ("read_obj:reset", "expected a fault such as"),
        ("read_obj@x:reset", "expected a fault such as"),
        ("raed_obj@1:reset", "no request is named 'raed_obj'"),
        ("read_obj@0:reset", "counted from 1, got 0"),
        ("read_obj@1:explode", "no fault is named 'explode'"),
        ("read_obj@1:error", "error needs a value"),
        ("read_obj@1:error=NOPE", "expected a result such as EIO or 0x03, got 'NOPE'"),
        ("read_obj@1:reset=5", "reset takes no value, got '5'"),
        ("read_obj@1:delay=nan", "expected seconds, got 'nan'"),
        ("read_obj@1:delay=soon", "could not convert"),
        ("read_obj@1:short=-1", "expected a number from 0 on, got '-1'"),
    ],
)
def test_a_text_that_is_no_fault_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault.parse(text)


def decisions(script: FaultScript, count: int) -> list[bool]:
    return [script.decide(READ, 1) is not None for _ in range(count)]


def test_a_fault_meets_the_nth_request_alone() -> None:
    assert decisions(FaultScript([Fault(faults.Stall(), READ, 2)]), 4) == [False, True, False, False]


def test_a_fault_onwards_meets_all_later_ones() -> None:
    assert decisions(FaultScript([Fault(faults.Stall(), READ, 2, onwards=True)]), 4) == [False, True, True, True]


def test_only_requests_of_the_opcode_count() -> None:
    script = FaultScript([Fault(faults.Stall(), READ, 2)])

    assert script.decide(READ, 1) is None
    assert script.decide(Opcode.WRITE_OBJ, 1) is None
    assert script.decide(READ, 1) == faults.Stall()


def test_only_requests_for_the_object_count() -> None:
    script = FaultScript([Fault(faults.Stall(), oid=7)])

    assert script.decide(Opcode.GET_NODE_LIST, None) is None
    assert script.decide(READ, 8) is None
    assert script.decide(READ, 7) == faults.Stall()


def test_the_first_fault_of_those_due_is_met() -> None:
    script = FaultScript([Fault(faults.Reset(), nth=2), Fault(faults.Stall(), READ, onwards=True)])

    assert [script.decide(READ, 1) for _ in range(3)] == [faults.Stall(), faults.Reset(), faults.Stall()]
