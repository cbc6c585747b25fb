"""The one place that knows where zstd comes from. It is loaded late: few starts need it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from asyncbackup.format.decoder import Damage

MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""How a frame with content begins."""

FRAME_SIZE: Final = 1 << 20
"""Bytes of content in a frame. Each can be read without the others, so this is what reading a few bytes costs: about a
millisecond. Larger frames are hardly smaller together (4 %), take more memory in each thread, and when headers of
objects of 4 MiB are looked for, more would be decompressed that nobody wants."""

LEVELS: Final = range(1, 23)
"""Levels of compression."""

DEFAULT_LEVEL: Final = 3
"""That of the zstd program."""

_MAX_WINDOW: Final = 25
"""Binary logarithm of the memory that a frame may ask for: 32 MiB. Only levels from 21 on, and --long, ask for more."""

_MAX_WINDOW_OF_RANGE: Final = 23
"""The same where several frames are decompressed at a time: 8 MiB. Ours ask for 1 MiB."""

_NO_ZSTD: Final = "this is no zstd that can be read ({})"

_PIECE_SIZE: Final = 128 << 10
"""Bytes of content to decompress at a time."""


def load_zstd() -> ModuleType:
    """Give the module of the standard library, or the same module for Pythons that have none."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - few starts need it
    else:
        from backports import zstd  # noqa: PLC0415 - as above
    return zstd


def make_compressor(level: int) -> Callable[[memoryview], bytes]:
    """Give a function that makes a frame of some content: with the content's size, and its checksum.

    It blocks, without the interpreter's lock. Only one thread at a time can use it.
    """
    zstd = load_zstd()
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(
        options={parameter.compression_level: level, parameter.checksum_flag: 1, parameter.content_size_flag: 1}
    )

    def compress(content: memoryview) -> bytes:
        # Knowing the size, zstd takes no more memory for the frame than it needs.
        compressor.set_pledged_input_size(len(content))
        frame: bytes = compressor.compress(content, compressor.FLUSH_FRAME)
        return frame

    return compress


def decompress_frame(frame: bytes | memoryview, size: int) -> bytes:
    """Give the content of a whole frame, which has ``size`` bytes. Blocks, without the interpreter's lock.

    Raises ValueError if it is no such frame. A frame can take no more memory than ``size`` and 8 MiB.
    """
    zstd = load_zstd()
    decompressor = _begin_frame(zstd, _MAX_WINDOW_OF_RANGE)
    try:
        content: bytes = decompressor.decompress(frame, size + 1)
    except zstd.ZstdError as error:
        raise ValueError(_NO_ZSTD.format(error)) from error
    if len(content) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"expected a frame of {size} bytes, as the seek table says, got another one")
    return content


def decompress_beginning(read: Callable[[int], memoryview], size: int) -> tuple[bytes, int] | None:
    """Give the content of a frame of ``size`` bytes, and the frame's length, which nothing says; None: it is none.

    ``read`` gives some bytes of the file, at an offset from the beginning of the frame on; none at the end. Blocks, and
    takes as much memory as ``decompress_frame``.
    """
    zstd = load_zstd()
    decompressor = _begin_frame(zstd, _MAX_WINDOW_OF_RANGE)
    content, fed = bytearray(), 0
    try:
        while not decompressor.eof:
            if not (data := read(fed)):
                return None
            fed += len(data)
            content += decompressor.decompress(data, size + 1 - len(content))
            if len(content) > size:
                return None
    except zstd.ZstdError:
        return None
    return (bytes(content), fed - len(decompressor.unused_data)) if len(content) == size else None


class Decompression:
    """Decompresses frames one after the other, in memory that no frame can make larger. It is a ``Filter``."""

    def __init__(self) -> None:
        self._zstd = load_zstd()
        self._frame: Any = None
        self._waiting: bytes | memoryview = b""
        self._fed = 0
        """Where the file goes on behind what waits."""
        self._last = 0
        """Where the last bytes that were fed begin, or the frame if it begins in them."""
        self._has_ended = False

    def feed(self, data: memoryview) -> None:
        assert not self._waiting, "it is fed when it is hungry"
        self._last = self._fed
        self._fed += len(data)
        self._waiting, self._has_ended = data, not data

    def take(self) -> bytes | None:
        try:
            while self._waiting or (self._frame is not None and not self._frame.needs_input):
                if content := self._decompress():
                    return content
        except self._zstd.ZstdError as error:
            raise Damage(self._last, _NO_ZSTD.format(error)) from error
        if not self._has_ended:
            return None
        if self._frame is not None:
            raise Damage(self._fed, "the file ends here, in the middle of a frame of zstd")
        return b""

    def _decompress(self) -> bytes:
        if self._frame is None:
            self._frame = _begin_frame(self._zstd, _MAX_WINDOW)
        waiting, self._waiting = self._waiting, b""
        content: bytes = self._frame.decompress(waiting, _PIECE_SIZE)
        if self._frame.eof:
            self._waiting, self._frame = self._frame.unused_data, None
            self._last = self._fed - len(self._waiting)
        return content

    def close(self) -> None:
        """Nothing runs that would have to end."""


def _begin_frame(zstd: ModuleType, max_window: int) -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: max_window})
