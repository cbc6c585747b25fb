"""Encrypts what goes to another target, as age does."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from anyio import to_thread

from asyncbackup.storage.age_keys import load_pyrage, parse_recipients
from asyncbackup.storage.layer_target import LayerTarget
from asyncbackup.storage.stepping import Reader, Stepping, Writer
from asyncbackup.storage.target import Bytes, Step, Target, run_before


class AgeTarget(LayerTarget):
    """Writes what is appended to ``inner``, which was entered, encrypted for ``recipients``: public keys as text.

    It encrypts in a thread of its own, which holds at most 2 MiB. ``append`` returns when all is encrypted, and all but
    less than 64 KiB is in ``inner``. The content is complete with ``end``.

    Making it raises KeyUnusable and ExtraMissing.
    """

    encrypts = True

    def __init__(self, inner: Target, recipients: Sequence[str]) -> None:
        super().__init__(inner)
        pyrage = load_pyrage()
        keys = parse_recipients(recipients)

        def encrypt(reader: Reader, writer: Writer) -> None:
            pyrage.encrypt_io(reader, writer, keys)

        self._encryption = Stepping("encryption", encrypt)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encryption.close()

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await run_before(before, buffers)
        self._encryption.feed(buffers)
        await self._write()

    async def _write(self) -> None:
        """Write what is encrypted, until more is wanted or all was written."""
        while encrypted := await to_thread.run_sync(self._encryption.take):
            await self.inner.append([encrypted])

    async def sync(self) -> None:
        await self.inner.sync()

    async def _write_rest(self) -> None:
        self._encryption.end_input()
        await self._write()
