"""Finds the frames of a compressed file that was not completed, and so has no seek table."""

from __future__ import annotations

from array import array
from typing import Final

from asyncbackup.storage.source import Source
from asyncbackup.storage.zstd import FRAME_SIZE, decompress_beginning

_STEP_SIZE: Final = 128 << 10
"""Bytes of the file to read at a time. Nothing says how long a frame is."""


class WrittenFrames:
    """The content of the whole frames of FRAME_SIZE that ``inner``, which was entered, begins with, for threads.

    It is read in order, and ends where no such frame follows. Frames are found as they are read, because terabytes of
    them are not to be read twice. The one that is shorter stands at the end of a file that was complete but for its
    name; it does not count.
    """

    size = None

    def __init__(self, inner: Source) -> None:
        self.name = inner.name
        self.lengths = array("I")
        """Bytes of each frame that was found so far."""
        self._inner = inner
        self._content = memoryview(b"")
        self._start = 0
        """Where the content of the last one begins."""
        self._end = 0
        """Where it ends in ``inner``."""

    def read_now(self, offset: int, view: memoryview) -> int:
        assert offset >= self._start, "frames come in order"
        done = 0
        while done < len(view):
            at = offset + done - self._start
            part = self._content[at : at + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            if not part and not self._find_next():
                break
        return done

    def _find_next(self) -> bool:
        """Find the next frame, and tell whether there is one."""
        found = read_frame(self._inner, self._end)
        if found is None:
            return False
        content, length = found
        self._start = len(self.lengths) * FRAME_SIZE
        self._content, self._end = memoryview(content), self._end + length
        self.lengths.append(length)
        return True


def read_frame(file: Source, offset: int) -> tuple[bytes, int] | None:
    """Give the content of the frame of FRAME_SIZE at ``offset``, and the frame's length; None if none is there."""
    buffer = memoryview(bytearray(_STEP_SIZE))

    def read(fed: int) -> memoryview:
        return buffer[: file.read_now(offset + fed, buffer)]

    return decompress_beginning(read, FRAME_SIZE)
