from __future__ import annotations

import pytest

from asyncbackup.wire.constants import HEADER_SIZE
from asyncbackup.wire.framing import MessageReader, Placement


class Receiver:
    """Takes messages whose header's first byte is the payload's length and whose second asks to drop it."""

    def __init__(self) -> None:
        self.reader = MessageReader(self._on_header, self._on_message)
        self.messages: list[bytes | None] = []
        self.headers = 0
        self._payload: bytearray | None = None

    def _on_header(self, header: memoryview) -> Placement:
        self.headers += 1
        length, drop = header[0], header[1]
        self._payload = None if drop else bytearray(length)
        return length, None if self._payload is None else memoryview(self._payload)

    def _on_message(self) -> None:
        self.messages.append(None if self._payload is None else bytes(self._payload))

    def feed(self, data: bytes) -> None:
        while data:
            buffer = self.reader.get_buffer()
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            self.reader.advance(count)
            data = data[count:]


def message(payload: bytes, *, drop: bool = False) -> bytes:
    return bytes([len(payload), drop]).ljust(HEADER_SIZE, b"\0") + payload


def test_a_message_without_a_payload_is_complete_with_its_header() -> None:
    receiver = Receiver()

    receiver.feed(message(b""))

    assert receiver.messages == [b""]


def test_a_payload_arrives_whole() -> None:
    receiver = Receiver()

    receiver.feed(message(b"payload"))

    assert receiver.messages == [b"payload"]


def test_an_unwanted_payload_is_received_and_dropped() -> None:
    receiver = Receiver()

    receiver.feed(message(b"payload", drop=True) + message(b"next"))

    assert receiver.messages == [None, b"next"]


def test_a_buffer_never_spans_a_message_boundary() -> None:
    receiver = Receiver()
    assert len(receiver.reader.get_buffer()) == HEADER_SIZE

    receiver.feed(message(b"payload")[:HEADER_SIZE])

    assert len(receiver.reader.get_buffer()) == 7


def test_a_dropped_payload_is_no_longer_written_to() -> None:
    target = bytearray(8)
    reader = MessageReader(lambda _: (8, memoryview(target)), lambda: None)
    reader.get_buffer()[:] = bytes(HEADER_SIZE)
    reader.advance(HEADER_SIZE)
    reader.get_buffer()[:2] = b"ab"
    reader.advance(2)

    reader.drop_payload()
    reader.get_buffer()[:] = b"cdefgh"

    assert target == b"ab".ljust(8, b"\0")


def test_dropping_while_a_header_is_received_changes_nothing() -> None:
    receiver = Receiver()
    receiver.feed(message(b"payload")[:10])

    receiver.reader.drop_payload()
    receiver.feed(message(b"payload")[10:])

    assert receiver.messages == [b"payload"]


def test_the_law_holds_while_a_large_payload_is_dropped() -> None:
    length = 200_000
    done: list[bool] = []
    reader = MessageReader(lambda _: (length, None), lambda: done.append(True))
    reader.advance(len(reader.get_buffer()))
    pieces = []
    while not done:
        pieces.append(len(reader.get_buffer()))
        reader.advance(pieces[-1])

    assert sum(pieces) == length
    assert max(pieces) == 64 * 1024


@pytest.mark.parametrize(
    ("count", "progress", "mid_message"),
    [
        (0, "0 of 48 bytes of a header", False),
        (10, "10 of 48 bytes of a header", True),
        (48, "0 of 7 bytes of a payload", True),
        (50, "2 of 7 bytes of a payload", True),
        (55, "0 of 48 bytes of a header", False),
    ],
)
def test_progress_is_told(count: int, progress: str, *, mid_message: bool) -> None:
    receiver = Receiver()

    receiver.feed(message(b"payload")[:count])

    assert receiver.reader.progress == progress
    assert receiver.reader.is_mid_message is mid_message


def test_an_error_about_a_header_passes_through() -> None:
    def refuse(_header: memoryview) -> Placement:
        raise ValueError("no such answer")

    reader = MessageReader(refuse, lambda: None)

    with pytest.raises(ValueError, match="no such answer"):
        reader.advance(HEADER_SIZE)
