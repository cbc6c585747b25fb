"""Cuts a byte stream into messages, receiving each payload straight into the buffer it is meant for.

A message is a 48-byte header and as many bytes as the header says. The law of this module:

- ``get_buffer`` is never empty, and never spans a message boundary, so no byte is ever moved after it arrived.
- ``on_header`` is called once a message, with the whole header, before its payload; ``on_message`` once, after it.
- Any split of the stream into ``advance`` calls gives the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asyncbackup.wire.constants import HEADER_SIZE

_SCRATCH_SIZE: Final = 64 * 1024
"""Unwanted payload is received in pieces of this size: few system calls, little memory."""

Placement = tuple[int, memoryview | None]
"""Payload length in bytes, and the writable view of just that length it goes to, or None to drop it."""


class MessageReader:
    """Receives messages; sans-IO, for ``asyncio.BufferedProtocol`` or any other source of bytes.

    ``on_header(header)`` says where the payload goes; what it raises passes through ``advance``. The header view is
    only valid during the call.
    """

    def __init__(self, on_header: Callable[[memoryview], Placement], on_message: Callable[[], None]) -> None:
        self._on_header = on_header
        self._on_message = on_message
        self._header = memoryview(bytearray(HEADER_SIZE))
        self._scratch = memoryview(bytearray(_SCRATCH_SIZE))
        self._begin_header()

    def _begin_header(self) -> None:
        self._in_header = True
        self._target: memoryview | None = self._header
        self._received = 0
        self._expected = HEADER_SIZE

    @property
    def is_mid_message(self) -> bool:
        """Whether the stream would be truncated if it ended now."""
        return not self._in_header or self._received > 0

    @property
    def progress(self) -> str:
        """How far the current header or payload has come, for error messages."""
        return f"{self._received} of {self._expected} bytes of a {'header' if self._in_header else 'payload'}"

    def get_buffer(self) -> memoryview:
        """Give the view that the next bytes of the stream have to be put into."""
        if self._target is None:
            return self._scratch[: self._expected - self._received]
        return self._target[self._received :]

    def advance(self, count: int) -> None:
        """Note that ``count`` bytes, at least 1, were put into the view of the last ``get_buffer``."""
        self._received += count
        if self._received < self._expected:
            return
        if self._in_header:
            self._expected, self._target = self._on_header(self._header)
            self._in_header = False
            self._received = 0
            if self._expected:
                return
        self._begin_header()
        self._on_message()

    def drop_payload(self) -> None:
        """Release the buffer of the current payload. The rest of the payload is received and dropped."""
        if not self._in_header:
            self._target = None
