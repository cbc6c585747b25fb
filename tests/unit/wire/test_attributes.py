from __future__ import annotations

import pytest

from asyncbackup.wire.attributes import (
    ATTRIBUTE_SIZE,
    HEADER_SIZE,
    MAX_VALUE,
    Attribute,
    delete_attribute,
    find_attribute,
    write_attribute,
)
from asyncbackup.wire.constants import Flag, Opcode
from asyncbackup.wire.messages import VdiBody

ATTRIBUTE = Attribute("disk", "key", b"value", tag="tag", snap_id=7, time=1 << 40)


def test_an_attribute_is_laid_out_as_the_protocol_says() -> None:
    packed = ATTRIBUTE.pack()

    assert len(packed) == ATTRIBUTE_SIZE == 66320
    assert packed[:4] + packed[256:259] == b"disktag"
    assert packed[512:528].hex(" ", 4) == "00000000 00010000 07000000 05000000"  # time, snapshot id, length
    assert packed[528:531] + packed[784:789] == b"keyvalue"
    assert HEADER_SIZE == 784


def test_an_attribute_survives_packing() -> None:
    assert Attribute.unpack(ATTRIBUTE.pack()) == ATTRIBUTE


def test_the_longest_value_survives_packing() -> None:
    longest = Attribute("disk", "key", b"x" * MAX_VALUE)

    assert Attribute.unpack(longest.pack()) == longest


def test_a_value_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a value of at most 65536 bytes, got 65537"):
        write_attribute("disk", "key", bytes(MAX_VALUE + 1))


def test_a_length_that_no_value_has_is_refused() -> None:
    packed = bytearray(ATTRIBUTE.pack())
    packed[524:528] = (MAX_VALUE + 1).to_bytes(4, "little")

    with pytest.raises(ValueError, match="expected a value of at most 65536 bytes, got 65537"):
        Attribute.unpack(packed)


def test_too_few_bytes_are_no_attribute() -> None:
    with pytest.raises(ValueError, match="expected at least 784 bytes of an attribute, got 783"):
        Attribute.unpack(ATTRIBUTE.pack()[:783])


def test_only_writing_sends_the_value() -> None:
    assert len(find_attribute("disk", "key").payload) == len(delete_attribute("disk", "key").payload) == HEADER_SIZE
    assert write_attribute("disk", "key", b"value").payload == Attribute("disk", "key", b"value").pack()


def test_the_flags_say_what_to_do() -> None:
    requests = find_attribute("disk", "key"), write_attribute("disk", "key", b""), delete_attribute("disk", "key")

    assert [request.opcode for request in requests] == [Opcode.GET_VDI_ATTR] * 3
    assert [int(request.flags) for request in requests] == [Flag.WRITE, Flag.WRITE | 0x100, Flag.WRITE | 0x400]


def test_a_snapshot_to_look_up_is_named_in_the_header_alone() -> None:
    request = find_attribute("disk", "key", beside=3)

    assert VdiBody.unpack(request.body).snapid == 3
    assert request.payload == find_attribute("disk", "key").payload
