from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray

from asyncbackup.format.decoder import Damage
from asyncbackup.format.plan import MAX_BASES, PlanTable, decode_plan, encode_plan


def u32(*values: int) -> NDArray[np.uint32]:
    return np.array(values, dtype=np.uint32)


PLAN = PlanTable(u32(1, 7, 1 << 31), u32(0x123456, 0, 5), (u32(0, 6, 5), u32(1, 2, 3)))


def signed(body: bytes) -> bytes:
    return body + xxhash.xxh3_128_digest(body)


def test_a_plan_is_columns_of_numbers_between_a_header_and_a_digest() -> None:
    body = b"abplan\r\n" + struct.pack("<3I", 1, 2, 3)
    body += struct.pack("<12I", 1, 7, 1 << 31, 0x123456, 0, 5, 0, 6, 5, 1, 2, 3)

    assert encode_plan(PLAN) == signed(body)


def test_a_plan_of_nothing_is_a_plan() -> None:
    decoded = decode_plan(encode_plan(PlanTable(u32(), u32(), (u32(),))))

    assert [len(column) for column in (decoded.idx, decoded.to_owners, *decoded.base_owners)] == [0, 0, 0]


def test_no_byte_can_change_unnoticed() -> None:
    good = encode_plan(PLAN)

    for place in range(len(good)):
        for flipped in (1, 0x80):
            bad = bytearray(good)
            bad[place] ^= flipped
            with pytest.raises(Damage):
                decode_plan(bytes(bad))


def test_no_byte_can_be_missing_or_too_many() -> None:
    good = encode_plan(PLAN)

    for end in range(len(good)):
        with pytest.raises(Damage, match=r"expected (a header of )?[0-9]+ bytes|the plan ends here"):
            decode_plan(good[:end])
    with pytest.raises(Damage, match=f"expected {len(good)} bytes, got {len(good) + 1}"):
        decode_plan(good + b"\0")


@pytest.mark.parametrize(
    ("body", "offset", "problem"),
    [
        (b"abplan\n\0" + struct.pack("<6I", 1, 1, 1, 0, 1, 0), 0, "expected the beginning of a plan"),
        (b"abplan\r\n" + struct.pack("<6I", 2, 1, 1, 0, 1, 0), 8, "expected version 1, got 2"),
        (b"abplan\r\n" + struct.pack("<5I", 1, 0, 1, 0, 1), 12, "expected 1 to 16 bases, got 0"),
        (b"abplan\r\n" + struct.pack("<3I", 1, 17, 0), 12, "expected 1 to 16 bases, got 17"),
        (b"abplan\r\n" + struct.pack("<6I", 1, 1, 1, (1 << 32) - 1, 1, 0), 20, "expected an index below 4294967295"),
        (b"abplan\r\n" + struct.pack("<9I", 1, 1, 2, 5, 5, 1, 1, 0, 0), 24, "object 1 of the plan: expected an index"),
        (b"abplan\r\n" + struct.pack("<6I", 1, 1, 1, 0, 1 << 24, 0), 24, "expected a vdi id of at most 16777215"),
        (b"abplan\r\n" + struct.pack("<6I", 1, 1, 1, 0, 0, 1 << 24), 28, "expected a vdi id of at most 16777215"),
        (b"abplan\r\n" + struct.pack("<6I", 1, 1, 1, 0, 3, 3), 24, "expected owners that differ"),
        (b"abplan\r\n" + struct.pack("<6I", 1, 1, (1 << 32) - 1, 0, 3, 4), 48, "expected 51539607576 bytes, got 48"),
    ],
)
def test_what_no_plan_has_is_damage_though_its_digest_is_right(body: bytes, offset: int, problem: str) -> None:
    with pytest.raises(Damage, match=problem) as caught:
        decode_plan(signed(body))

    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"base_owners": ()}, "expected 1 to 16 bases, got 0"),
        ({"base_owners": (u32(0, 6, 6),) * (MAX_BASES + 1)}, "expected 1 to 16 bases, got 17"),
        ({"to_owners": u32(1, 2)}, "columns of one length"),
        ({"idx": u32(7, 1, 8)}, "expected an index above the one before"),
        ({"to_owners": u32(1, 2, 1 << 24)}, "expected a vdi id"),
    ],
)
def test_what_no_reader_takes_is_not_written(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        encode_plan(PLAN._replace(**changed))
