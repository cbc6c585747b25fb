"""Converts a backup into the other dialect, or into a stream that Ceph imports."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass

from anyio import to_thread

from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compact import ZEROS, trim
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.index import read_index
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import BaseUnwanted, single_error
from asyncbackup.format import Dialect, rbd_diff
from asyncbackup.format.identity import Identity
from asyncbackup.storage import Layers, Target, open_target, publish
from asyncbackup.verbs.merge import MergeSummary, merge


@dataclass(frozen=True, slots=True)
class RbdDiffSummary:
    """What an rbd-diff stream holds. Sizes in bytes, times in seconds."""

    base: str | None
    """The snapshot that Ceph must have. None: the stream is a full image."""
    snapshot: str | None
    """The snapshot that the import makes. None: it makes none."""
    size: int
    """The size of the image."""
    ranges: int
    bytes_written: int
    elapsed_s: float

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def convert(
    backup: str | os.PathLike[str],
    target: str | os.PathLike[str] | Target,
    *,
    replace: bool = False,
    manifest: Target | None = None,
    chain_options: ChainOptions | None = None,
    dialect: Dialect = Dialect.COLLIE,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
    layers: Layers | None = None,
) -> MergeSummary:
    """Write ``backup`` in ``dialect``, and its manifest if it has one.

    It takes ``target``, ``replace``, ``manifest`` and ``layers`` as ``merge`` does, and raises what ``merge`` raises.
    """
    return await merge(
        [backup],
        target,
        replace=replace,
        manifest=manifest,
        chain_options=chain_options,
        dialect=dialect,
        options=options,
        on_progress=on_progress,
        layers=layers,
    )


async def convert_to_rbd_diff(
    backup: str | os.PathLike[str],
    target: str | os.PathLike[str] | Target,
    *,
    snapshot_name: str | None = None,
    base_name: str | None = None,
    replace: bool = False,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
    layers: Layers | None = None,
) -> RbdDiffSummary:
    """Write ``backup`` as a stream for ``rbd import-diff``. Bytes behind the end of the VDI are left out.

    ``target`` is the path of a file, which must not exist unless ``replace`` is true, or an entered target, without
    ``replace``. ``snapshot_name`` and ``base_name`` are what Ceph calls the snapshots. By default it calls them by
    their tags in the manifest, or by their ids if they have none. Raises FactMissing if neither the manifest nor the
    caller says the VDI's size, OutsideVdi for an object behind its end, and the errors of reading and writing.
    """
    started = time.monotonic()
    access = chain_options.access if chain_options else None
    async with open_target(
        target, replace=replace, with_manifest=False, inputs=[backup], access=access, layers=layers
    ) as opened:
        with single_error():
            async with open_chain([backup], chain_options) as chain:
                if chain.is_full and base_name is not None:
                    raise BaseUnwanted(chain.readers[0].name)
                of = chain.subject
                snapshot = _name(of.identity if of else None) if snapshot_name is None else snapshot_name
                base = _name(of.base_identity if of else None) if base_name is None else base_name
                output = _RangeStream(opened.data, chain, Meter(ReplayCounts(), on_progress))
                index = None if chain.is_piped else await read_index(chain, on_progress)
                if index is not None:
                    chain.position(index.last_idx)
                    output.meter.counts.objects_planned = len(index.indices)
                options = options or WindowOptions()
                options = options.without(opened.reserve(chain.stored_size, None, options.memory, may_be_less=True))
                await output.write([rbd_diff.opening(chain.size, snapshot, base)])
                await Replay(index or chain, Composer(None), options, nothing, output.deliver).run()
                await output.write([rbd_diff.ENDING])
                await publish(opened.data)
                return RbdDiffSummary(
                    base=base,
                    snapshot=snapshot,
                    size=chain.size,
                    ranges=output.ranges,
                    bytes_written=output.meter.counts.bytes_written,
                    elapsed_s=time.monotonic() - started,
                )


@dataclass(slots=True)
class _RangeStream:
    """Writes the objects of ``chain`` to ``target`` as ranges of an image."""

    target: Target
    chain: Chain
    meter: Meter
    ranges: int = 0

    async def deliver(self, contents: list[Content]) -> None:
        """Write each portion as a range."""
        zero = await to_thread.run_sync(_find_zeros, contents)
        pieces: list[bytes | memoryview] = []
        for content, is_zero in zip(contents, zero, strict=True):
            start = self.chain.position(content.group.idx) + content.portion.offset
            data = content.data[: max(0, self.chain.size - start)]
            if data:
                pieces += [rbd_diff.zeros(start, len(data))] if is_zero else [rbd_diff.data(start, len(data)), data]
                self.ranges += 1
        await self.write(pieces)
        await self.meter.count(contents)

    async def write(self, pieces: list[bytes | memoryview]) -> None:
        if pieces:
            await self.target.append(pieces)
            self.meter.counts.bytes_written += sum(map(len, pieces))


def _find_zeros(contents: list[Content]) -> list[bool]:
    return [trim(content.data, ZEROS[: len(content.data)]).length == 0 for content in contents]


def _name(snapshot: Identity | None) -> str | None:
    """Give the name that the snapshot has in Ceph: its tag or its id. None: it is a working VDI."""
    if snapshot is None or snapshot.created is None:
        return None
    return snapshot.tag or str(snapshot.id)
