"""Exports that were interrupted, and go on: the image is that of a run that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncbackup import ChainOptions, ExportSummary, Progress, WindowOptions, export
from asyncbackup.errors import BegunOtherwise, NotResumable, PartialDamaged, TargetUnfinished
from asyncbackup.storage.image import read_state
from asyncbackup.storage.publication import manifest_path
from tests.chains import SIZE, Files, copy_files
from tests.disks import OBJECT, OBJECTS
from tests.folders import left_in

# Each of many runs is interrupted somewhere.
pytestmark = pytest.mark.slow

ONE = WindowOptions(workers=1)
PORTIONS = WindowOptions(workers=2, memory=1 << 20)
KEPT = [".image.partial", ".image.partial.journal"]


class Stop(Exception):
    """Ends a run."""


class Run:
    """Exports a chain to ``image`` in ``folder``, and stops when ``stop_at`` objects are done."""

    def __init__(self, folder: Path, files: Files) -> None:
        self.folder = folder
        self.files = files
        self.image, self.journal = folder / "image", folder / KEPT[1]

    async def __call__(self, stop_at: int | None = None, **arguments: Any) -> ExportSummary:
        last = 0

        def tell(progress: Progress) -> None:
            nonlocal last
            if not progress.is_checking and progress.objects_done != last:
                last = progress.objects_done
                if last == stop_at:
                    raise Stop

        given: dict[str, Any] = {"options": ONE, "checkpoint_bytes": 1, "backups": self.files.all} | arguments
        return await export(given.pop("backups"), self.image, on_progress=tell, **given)

    async def stopped(self, stop_at: int = 3, **arguments: Any) -> None:
        with pytest.raises(Stop):
            await self(stop_at, **arguments)
        assert left_in(self.folder) == KEPT


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "files").mkdir()
    (tmp_path / "folder").mkdir()
    return Run(tmp_path / "folder", copy_files(tmp_path / "files"))


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("options", [ONE, WindowOptions(), PORTIONS], ids=["one", "some", "portions"])
async def test_what_was_interrupted_anywhere_and_resumed_is_what_was_not_interrupted(
    run: Run, options: WindowOptions
) -> None:
    resumed = []
    for stop_at in range(1, OBJECTS):
        try:
            await run(stop_at, options=options)
        except Stop:
            resumed.append((await run(options=options, resume=True)).objects_resumed)
        assert run.image.read_bytes() == run.files.images["c"], stop_at
        assert left_in(run.folder) == ["image", "image.state"]
        state = await read_state(run.image)
        assert state is not None
        assert state.identity == run.files.identities["c"]
        remove(run.folder)

    assert any(resumed)


async def test_an_image_on_an_image_goes_on(run: Run) -> None:
    base = run.files.image("a")
    await run.stopped(2, backups=[run.files.ab, run.files.bc], base=base)

    summary = await run(backups=[run.files.ab, run.files.bc], base=base, resume=True)

    assert summary.objects_resumed == 1
    assert run.image.read_bytes() == run.files.images["c"]


async def test_what_reached_no_checkpoint_leaves_nothing(run: Run) -> None:
    with pytest.raises(Stop):
        await run(3, checkpoint_bytes=1 << 30)

    assert left_in(run.folder) == []


async def test_resuming_nothing_begins(run: Run) -> None:
    summary = await run(resume=True)

    assert summary.objects_resumed == 0
    assert run.image.read_bytes() == run.files.images["c"]


async def test_what_is_unfinished_is_in_the_way_or_goes(run: Run) -> None:
    await run.stopped()
    with pytest.raises(TargetUnfinished):
        await run()

    summary = await run(replace=True)

    assert summary.objects_resumed == 0
    assert left_in(run.folder) == ["image", "image.state"]


async def test_another_chain_is_not_gone_on_with(run: Run) -> None:
    await run.stopped()

    with pytest.raises(BegunOtherwise, match="begun with another chain of backups"):
        await run(backups=[run.files.a], resume=True)

    assert left_in(run.folder) == KEPT


async def test_a_journal_that_says_nothing_is_told(run: Run) -> None:
    await run.stopped()
    run.journal.write_bytes(b"\0" * 100)

    with pytest.raises(PartialDamaged):
        await run(resume=True)


async def test_a_line_of_the_journal_that_is_torn_does_not_count(run: Run) -> None:
    await run.stopped(4)
    whole = run.journal.read_bytes()
    lines = whole.count(b"\n")
    run.journal.write_bytes(whole[:-9])

    summary = await run(resume=True)

    assert summary.objects_resumed == lines - 1
    assert run.image.read_bytes() == run.files.images["c"]


async def test_what_nothing_proves_is_not_resumed(run: Run) -> None:
    manifest_path(run.files.a).unlink()

    with pytest.raises(NotResumable):
        await run(backups=[run.files.a], chain_options=ChainOptions(size=SIZE, object_size=OBJECT), resume=True)
