from __future__ import annotations

import struct
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.format.decoder import Damage
from asyncbackup.format.seekable import FOOTER_SIZE, Footer, Frame, SeekTable, SeekTableEncoder, decode_footer

MAGIC = 0x8F92EAB1

SIZES = st.tuples(st.integers(1, 1 << 20), st.one_of(st.just(0), st.integers(0, 5)))


def encode(frames: list[tuple[int, int]]) -> tuple[bytes, int]:
    """Give the table of some frames, and the size of their file."""
    encoder = SeekTableEncoder()
    for length, size in frames:
        encoder.add(length, size)
    table = encoder.encode()
    return table, sum(length for length, _ in frames) + len(table)


@given(st.lists(SIZES, min_size=1, max_size=600))
def test_each_byte_of_the_content_is_found_in_its_frame(frames: list[tuple[int, int]]) -> None:
    table, file_size = encode(frames)
    found = SeekTable.decode(table, file_size)

    offsets = [0, *accumulate(length for length, _ in frames)]
    starts = [0, *accumulate(size for _, size in frames)]
    assert (found.frames, found.size) == (len(frames), starts[-1])
    for number, (length, size) in enumerate(frames):
        expected = Frame(number, offsets[number], length, starts[number], size)
        assert all(found.find(starts[number] + byte) == expected for byte in range(size))


def test_a_table_is_as_the_format_says() -> None:
    table, _ = encode([(7, 1000), (9, 0)])

    assert table == struct.pack("<II IIII IBI", 0x184D2A5E, 25, 7, 1000, 9, 0, 2, 0, MAGIC)


def test_checksums_in_a_table_are_passed_over() -> None:
    table = struct.pack("<II III III IBI", 0x184D2A5E, 33, 7, 1000, 1, 9, 10, 2, 2, 0x80, MAGIC)
    footer = decode_footer(table[-FOOTER_SIZE:], 16 + len(table))

    assert footer == Footer(2, len(table))
    assert SeekTable.decode(table, 16 + len(table)).find(1005) == Frame(1, 7, 9, 1000, 10)


def test_a_file_may_end_without_a_table() -> None:
    assert decode_footer(bytes(FOOTER_SIZE), 100) is None


@pytest.mark.parametrize(
    ("count", "flags", "problem"),
    [(1 << 31, 0, "within the file's 1000 bytes"), (1, 4, "other flags"), (200, 0x80, "within the file's 1000 bytes")],
)
def test_a_footer_that_cannot_be_true_is_damage(count: int, flags: int, problem: str) -> None:
    with pytest.raises(Damage, match=problem):
        decode_footer(struct.pack("<IBI", count, flags, MAGIC), 1000)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_table_of_another_file_is_damage(difference: int) -> None:
    table, file_size = encode([(7, 1000), (9, 5)])

    with pytest.raises(Damage, match="expected a seek table of the"):
        SeekTable.decode(table, file_size + difference)


@pytest.mark.parametrize("place", [0, 4])
def test_a_frame_that_begins_otherwise_is_no_table(place: int) -> None:
    table, file_size = encode([(7, 1000)])
    changed = bytearray(table)
    changed[place] ^= 1

    with pytest.raises(Damage, match="expected a seek table of 1 frames, got something else"):
        SeekTable.decode(bytes(changed), file_size)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_bytes_do_more_than_be_damage(garbage: bytes, others: int) -> None:
    end = garbage + struct.pack("<IBI", len(garbage) // 8, 0, MAGIC)
    try:
        footer = decode_footer(end[-FOOTER_SIZE:], others + len(end))
        if footer is not None and footer.frames:
            SeekTable.decode(
                bytes(others + len(end))[: footer.size - len(end)] + end[-footer.size :], others + len(end)
            )
    except Damage:
        pass
