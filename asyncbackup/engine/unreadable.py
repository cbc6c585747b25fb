"""Objects that the cluster cannot give. A backup fails and names them, or it does without them."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field

from asyncbackup.engine.fetch import Unreadable
from asyncbackup.engine.plan import Pair
from asyncbackup.errors import ObjectReadFailed, ObjectsUnreadable


@dataclass(slots=True)
class Losses:
    """The objects that could not be read so far. If they ``are_skipped``, the backup does without them."""

    are_skipped: bool
    missing: array[int] = field(default_factory=lambda: array("I"))
    """The idx of each object that was left out."""
    failures: list[ObjectReadFailed] = field(default_factory=list)
    """The errors that end the backup. After the first one, only reads that are under way add others."""

    def begin_with(self, missing: Iterable[int]) -> None:
        """Take over what an interrupted run left out."""
        self.missing.extend(missing)

    def note(self, unreadable: Unreadable) -> bool:
        """Take note of an object. Tell whether to leave it out and go on."""
        if self.are_skipped:
            self.missing.append(unreadable.idx)
        else:
            self.failures.append(unreadable.error)
        return self.are_skipped


async def until_failure(pairs: AsyncGenerator[Pair, None], losses: Sequence[Losses]) -> AsyncGenerator[Pair, None]:
    """Give ``pairs`` until a backup has failed. Reads under way then still end, and their errors are named."""
    async for pair in pairs:
        if any(each.failures for each in losses):
            return
        yield pair


def raise_failures(losses: Sequence[Losses]) -> None:
    """Raise ObjectReadFailed for one object, ObjectsUnreadable for several. Backups that lack the same name it once."""
    failures = {failure.idx: failure for each in losses for failure in each.failures}
    if len(failures) == 1:
        raise failures.popitem()[1]
    if failures:
        raise ObjectsUnreadable([failures[idx] for idx in sorted(failures)])
