from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.storage.stepping import Reader, Stepping, Writer

MIB = 1 << 20


def copy(reader: Reader, writer: Writer) -> None:
    while data := reader.read(8192):
        writer.write(data)
    writer.flush()


def taken(stepping: Stepping) -> bytes:
    """Take until it is hungry or has ended."""
    output = bytearray()
    while data := stepping.take():
        output += data
    return bytes(output)


@given(st.lists(st.binary(max_size=20_000), max_size=8))
def test_what_goes_in_comes_out(parts: list[bytes]) -> None:
    stepping = Stepping("copying", copy)
    output = bytearray()
    for part in parts:
        stepping.feed([part, b""])
        output += taken(stepping)
    stepping.end_input()
    output += taken(stepping)
    stepping.close()

    assert output == b"".join(parts)


def test_it_is_hungry_before_it_was_fed() -> None:
    assert Stepping("copying", copy).take() is None


def test_the_buffers_are_free_when_it_is_hungry() -> None:
    stepping, buffer = Stepping("copying", copy), bytearray(b"first")
    stepping.feed([buffer])
    first = taken(stepping)
    buffer[:] = b"other"
    stepping.end_input()

    assert first + taken(stepping) == b"first"
    stepping.close()


def test_output_that_nobody_takes_holds_the_work_back() -> None:
    read = 0

    def work(reader: Reader, writer: Writer) -> None:
        nonlocal read
        while data := reader.read(MIB):
            read += len(data)
            writer.write(data)

    stepping = Stepping("copying", work)
    stepping.feed([bytes(64 * MIB)])
    for _ in range(3):
        assert stepping.take()
    # Three were taken. One or two may wait, one may be in the making.
    assert read <= 6 * MIB
    stepping.close()


@pytest.mark.parametrize("fed", [b"", b"some", bytes(8 * MIB)], ids=["nothing", "little", "much"])
def test_close_ends_the_thread_wherever_it_is(fed: bytes) -> None:
    stepping = Stepping("copying", copy)
    stepping.feed([fed])
    stepping.close()
    stepping.close()

    assert not stepping._thread.is_alive()


def test_an_error_comes_behind_the_output_before_it() -> None:
    def work(reader: Reader, writer: Writer) -> None:
        writer.write(reader.read(4))
        raise ValueError("broken")

    stepping = Stepping("copying", work)
    stepping.feed([b"some more"])

    assert stepping.take() == b"some"
    with pytest.raises(ValueError, match="broken"):
        stepping.take()
    stepping.close()


def test_work_that_is_ended_early_does_not_take_that_for_a_call_to_repeat() -> None:
    repeated = 0

    def work(reader: Reader, _writer: Writer) -> None:
        nonlocal repeated
        while repeated < 1000:
            try:
                reader.read(10)
            # As Rust does.
            except InterruptedError:
                repeated += 1

    stepping = Stepping("copying", work)
    stepping.feed([b"some"])
    stepping.close()

    assert repeated == 0
