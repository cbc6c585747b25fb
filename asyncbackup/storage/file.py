"""A backup, or a manifest, on disk: written from its beginning to its end, and published at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from asyncbackup.storage.atomic import AtomicFile
from asyncbackup.storage.target import Bytes, Step


class FileTarget(AtomicFile):
    """Writes ``path`` in order."""

    can_patch = True

    @classmethod
    def beside(cls, main: AtomicFile, suffix: str) -> Self:
        """Make the target of what belongs to ``main``, which was entered.

        Unless it is abandoned, it becomes visible together with ``main``, when that is completed.
        """
        target = cls(main.place.beside(suffix).final, replace=main.replaces)
        main.attach(target)
        return target

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await self._in_thread(self._append, buffers, before)
