"""A request: what is wanted of a cluster, and what came of it. It outlives the attempts that carry it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from asyncbackup.errors import AsyncBackupError
from asyncbackup.wire.constants import Result
from asyncbackup.wire.messages import Message, ResponseHeader

NO_PAYLOAD: Final = memoryview(b"")


@dataclass(slots=True, eq=False)
class Request:
    """What is wanted, where its payload goes, how often it was repeated, and its answer."""

    message: Message
    buffer: memoryview | None = None
    """Where the payload of the answer goes, ``message.capacity`` bytes. None: into memory of its own."""
    at: tuple[str, int] | None = field(default=None, kw_only=True)
    """Host and port of the only node that may answer; None: any node may."""
    repeats: int = field(default=0, init=False)
    """How often it was sent again.

    The cluster may have carried it out nevertheless, so that a later attempt meets what an earlier one did.
    """
    answer: ResponseHeader | None = field(default=None, init=False)
    """The answer of the last attempt; None while there is none."""
    error: AsyncBackupError | None = field(default=None, init=False)
    """Why the last attempt got no answer."""
    payload: memoryview = field(default=NO_PAYLOAD, init=False)
    """What the answer brought; empty if its result is an error."""

    def place(self, header: ResponseHeader, buffer: memoryview | None) -> memoryview:
        """Say where the payload of a successful answer goes: a writable view of ``data_length`` bytes.

        ``buffer`` is that of the attempt that is answered. Raises ValueError, in the words "expected …, got …", if no
        such answer can be meant.
        """
        if buffer is None:
            return memoryview(bytearray(header.data_length))
        if header.data_length != len(buffer):
            raise ValueError(f"expected {len(buffer)} bytes, got {header.data_length} bytes")
        return buffer

    @property
    def header(self) -> ResponseHeader:
        """The answer. Only for a request that was answered."""
        assert self.answer is not None
        return self.answer

    @property
    def result(self) -> Result:
        """What the answer says. Only for a request that was answered."""
        return self.header.result
