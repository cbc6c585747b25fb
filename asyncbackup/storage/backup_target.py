"""Opens what a backup goes to: a target for its data, and one for its manifest."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.errors import ManifestUnplaced, NotResumable, OwnInput
from asyncbackup.storage.access import Access
from asyncbackup.storage.file import FileTarget, OnLeftover
from asyncbackup.storage.image import state_path
from asyncbackup.storage.layers import Layers
from asyncbackup.storage.location import ObjectLocation, find_object, to_path
from asyncbackup.storage.object_store import StoredObject, open_object
from asyncbackup.storage.object_target import ObjectTarget
from asyncbackup.storage.opening import fault_of_name, open_in_thread
from asyncbackup.storage.partial import Partial
from asyncbackup.storage.pipe import PipeTarget, is_fifo, open_fifo
from asyncbackup.storage.publication import MANIFEST, Place, manifest_path
from asyncbackup.storage.target import ResumableLayer, Target, holding

_NOT_KEPT: Final = "nothing is kept of what is encrypted"

_LINE_SIZE: Final = 128
"""Bytes of a line of a manifest about a record, rather more than less."""

_MANIFEST_MEMORY: Final = 32 << 20
"""Bytes of which a manifest has a share: it is small beside its backup, and half of this is enough for any."""


class BackupTarget(NamedTuple):
    """Two targets that were entered, and not yet completed."""

    data: Target
    manifest: Target | None
    """None: no manifest is written."""
    partial: Partial | None = None
    """What can stay of both for another run; None: nothing can, as of pipes and of what has no manifest."""

    def reserve(self, size: int | None, records: int | None, memory: int, *, may_be_less: bool = False) -> int:
        """Prepare for so many bytes and records, as ``HoldingTarget.reserve`` does. Give the bytes that both take."""
        held = sum(each.reserve(size, memory, may_be_less=may_be_less) for each in holding(self.data))
        if self.manifest is not None:
            lines = None if records is None else records * _LINE_SIZE
            held += sum(each.reserve(lines, _MANIFEST_MEMORY, may_be_less=True) for each in holding(self.manifest))
        return held


@asynccontextmanager
async def open_target(
    target: str | os.PathLike[str] | Target,
    *,
    replace: bool = False,
    resume: bool = False,
    manifest: str | os.PathLike[str] | Target | None = None,
    with_manifest: bool = True,
    inputs: Sequence[str | os.PathLike[str]] = (),
    on_leftover: OnLeftover | None = None,
    access: Access | None = None,
    layers: Layers | None = None,
) -> AsyncIterator[BackupTarget]:
    """Open ``target`` for a backup: the path of a file or a FIFO, a URL, or an entered target, which is only passed on.

    The manifest of a file or an object stands beside it, unless ``with_manifest`` is false. That of a FIFO or an
    entered target goes to ``manifest``, a path or another entered target, or nowhere. If ``replace`` is true, what is
    there is replaced once the new one is complete, together with the manifest that it has. If ``resume`` is true, what
    an interrupted run left of the file is opened, if there is such; otherwise it is removed if ``replace`` is true.

    With ``layers`` it is compressed, or encrypted. Of what is encrypted nothing can be kept to go on with.

    Raises what entering a FileTarget or an ObjectTarget raises, what ``open_object`` and ``Layers.wrap_target`` raise,
    OwnInput if one of ``inputs`` would be replaced, ManifestUnplaced if the manifest of a file or an object is to go
    elsewhere, and NotResumable if nothing is kept of what should be resumed. Raises ValueError for ``replace`` or
    ``resume`` where only entered targets are given, and for a ``manifest`` where none is to be written.
    """
    if manifest is not None and not with_manifest:
        raise ValueError("expected either a manifest or with_manifest=False")
    if replace and not any(isinstance(given, str | os.PathLike) for given in (target, manifest)):
        raise ValueError("expected a path to replace, got a target that is open already")
    if resume and not isinstance(target, str | os.PathLike):
        raise ValueError("expected a path to resume, got a target that is open already")
    if resume and layers and layers.recipients:
        raise NotResumable(str(target), _NOT_KEPT)
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(
            _open_plain(
                target,
                replace=replace,
                resume=resume,
                manifest=manifest,
                with_manifest=with_manifest,
                inputs=inputs,
                on_leftover=on_leftover,
                access=access,
            )
        )
        yield await _wrap(stack, opened, layers)


async def _wrap(stack: AsyncExitStack, opened: BackupTarget, layers: Layers | None) -> BackupTarget:
    if not layers:
        return opened
    manifest = opened.manifest and await layers.wrap_manifest(stack, opened.manifest)
    data, partial = await layers.wrap_target(stack, opened.data), opened.partial
    if partial is not None:
        partial = partial.compressed_by(data) if isinstance(data, ResumableLayer) and not layers.recipients else None
    return BackupTarget(data, manifest, partial)


@asynccontextmanager
async def _open_plain(
    target: str | os.PathLike[str] | Target,
    *,
    replace: bool,
    resume: bool,
    manifest: str | os.PathLike[str] | Target | None,
    with_manifest: bool,
    inputs: Sequence[str | os.PathLike[str]],
    on_leftover: OnLeftover | None,
    access: Access | None,
) -> AsyncIterator[BackupTarget]:
    async with AsyncExitStack() as stack:
        if not isinstance(target, str | os.PathLike):
            yield BackupTarget(target, await _open_manifest(stack, manifest, replace=replace, on_leftover=on_leftover))
            return
        target = to_path(target) if isinstance(target, str) else target
        if location := find_object(target):
            place = await _open_place(location, access, resume=resume, manifest=manifest)
            if replace:
                await refuse_own_inputs(target, inputs)
            stored = await stack.enter_async_context(ObjectTarget(place, replace=replace, attached=[MANIFEST]))
            lines = await stack.enter_async_context(ObjectTarget.beside(stored, MANIFEST)) if with_manifest else None
            yield BackupTarget(stored, lines)
            return
        goes_to_fifo = await _goes_to_fifo(target, resume=resume, with_manifest=with_manifest)
        if replace or goes_to_fifo:
            await refuse_own_inputs(target, inputs)
        if goes_to_fifo:
            opened = await _open_manifest(stack, manifest, replace=replace, on_leftover=on_leftover)
            yield BackupTarget(await stack.enter_async_context(open_fifo(target)), opened)
            return
        if manifest is not None:
            raise ManifestUnplaced(str(target))
        data = await stack.enter_async_context(
            FileTarget(target, replace=replace, resume=resume, attached=[MANIFEST], on_leftover=on_leftover)
        )
        beside = await stack.enter_async_context(FileTarget.beside(data, MANIFEST)) if with_manifest else None
        yield BackupTarget(data, beside, None if beside is None else Partial(data, beside))


async def _open_place(
    location: ObjectLocation, access: Access | None, *, resume: bool, manifest: object
) -> StoredObject:
    """Open the store. Raises NotResumable, ManifestUnplaced, and what ``open_object`` raises."""
    if resume:
        raise NotResumable(str(location), "it is in an object store, which keeps nothing of an interrupted run")
    if manifest is not None:
        raise ManifestUnplaced(str(location))
    return await to_thread.run_sync(open_object, location, access)


async def _goes_to_fifo(target: str | os.PathLike[str], *, resume: bool, with_manifest: bool) -> bool:
    """Tell whether ``target`` is a FIFO. Raises NotResumable if nothing is kept of what should be resumed."""
    goes_to_fifo = await is_fifo(target)
    if resume and goes_to_fifo:
        raise NotResumable(str(target), "it is a pipe, which keeps nothing")
    if resume and not with_manifest:
        raise NotResumable(str(target), "without a manifest nothing proves what was written of it")
    return goes_to_fifo


async def check_target(
    target: str | os.PathLike[str] | None,
    *,
    replace: bool = False,
    resume: bool = False,
    manifest: str | os.PathLike[str] | None = None,
    with_manifest: bool = True,
    access: Access | None = None,
    layers: Layers | None = None,
) -> None:
    """Raise what ``open_target`` would raise before anything is written. This creates and changes nothing.

    Without a ``target`` it is for ``open_standard_output``. A FIFO is not opened, and nobody is waited for.
    """
    if resume and layers and layers.recipients:
        raise NotResumable(str(target), _NOT_KEPT)
    if layers:
        layers.check()
    target = to_path(target) if isinstance(target, str) else target
    if location := find_object(target):
        place = await _open_place(location, access, resume=resume, manifest=manifest)
        await ObjectTarget(place, replace=replace, attached=[MANIFEST]).check()
    elif target is not None and not await _goes_to_fifo(target, resume=resume, with_manifest=with_manifest):
        if manifest is not None:
            raise ManifestUnplaced(str(target))
        await FileTarget(target, replace=replace, resume=resume, attached=[MANIFEST]).check()
    elif manifest is not None:
        await FileTarget(manifest, replace=replace).check()


@asynccontextmanager
async def open_standard_output(
    manifest: str | os.PathLike[str] | None,
    *,
    replace: bool = False,
    on_leftover: OnLeftover | None = None,
    layers: Layers | None = None,
) -> AsyncIterator[BackupTarget]:
    """Open standard output for a backup, and ``manifest`` for its manifest if it is to have one."""
    async with AsyncExitStack() as stack:
        opened = await _open_manifest(stack, manifest, replace=replace, on_leftover=on_leftover)
        output = BackupTarget(await stack.enter_async_context(PipeTarget(1)), opened)
        yield await _wrap(stack, output, layers)


async def _open_manifest(
    stack: AsyncExitStack,
    manifest: str | os.PathLike[str] | Target | None,
    *,
    replace: bool,
    on_leftover: OnLeftover | None,
) -> Target | None:
    if isinstance(manifest, str | os.PathLike):
        return await stack.enter_async_context(FileTarget(manifest, replace=replace, on_leftover=on_leftover))
    return manifest


async def refuse_own_inputs(path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Raise OwnInput if writing ``path`` would replace one of ``inputs``, or what is beside one, by whatever name."""
    inputs = [to_path(name) if isinstance(name, str) else name for name in inputs]
    if location := find_object(path):
        for name in inputs:
            read = find_object(name)
            if read is not None and {read, read.beside(MANIFEST)} & {location, location.beside(MANIFEST)}:
                raise OwnInput(str(path), str(name))
        return
    files = [name for name in inputs if find_object(name) is None]
    await open_in_thread(lambda: _refuse_own_inputs(path, files), lambda _: None)


def _refuse_own_inputs(path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]]) -> None:
    if fault_of_name(path) is not None:
        return
    place = Place(Path(os.path.realpath(path)))
    replaced = [place.final, place.beside(MANIFEST).final]
    read = [Path(name) for name in inputs]
    beside = [name for given in read for name in (given, os.path.realpath(given)) if given.name]
    read += [path for name in beside for path in (manifest_path(name), state_path(name))]
    for target in replaced:
        for source in read:
            if _is_same(target, source):
                raise OwnInput(str(path), str(source))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
