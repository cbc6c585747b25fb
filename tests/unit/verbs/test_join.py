from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from asyncbackup import ChainOptions, Cluster, Dialect, NullTarget, Progress, Shard, WindowOptions, backup, join, verify
from asyncbackup.errors import (
    BackupDamaged,
    FileNeeded,
    HyperVolume,
    OwnInput,
    PieceDoubled,
    PieceForeign,
    PieceMissing,
    PieceNeeded,
    SourceMissing,
    TargetExists,
)
from asyncbackup.storage import Access, Layers
from asyncbackup.storage.age_keys import load_pyrage
from asyncbackup.storage.publication import manifest_path
from asyncbackup.verbs import join as module
from asyncbackup.wire import btree, messages
from asyncbackup.wire.inode import TABLE_OFFSET
from asyncbackup.wire.oid import inode_oid
from tests.collecting import CollectingTarget
from tests.disks import OBJECT, OBJECTS, make_disk
from tests.folders import left_in
from tests.pieces import make_pieces, read_both


@pytest.fixture
async def disk(cluster: Cluster) -> Cluster:
    await make_disk(cluster)
    return cluster


@pytest.mark.parametrize("base", [None, "a"])
@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("count", [1, 3, 20])
async def test_pieces_in_any_order_join_to_what_one_run_makes(
    disk: Cluster, tmp_path: Path, count: int, dialect: Dialect, base: str | None
) -> None:
    whole = await backup(disk, "disk", tmp_path / "whole", snapshot="b", base=base, dialect=dialect)
    pieces = await make_pieces(disk, tmp_path, count, base=base, dialect=dialect)

    summary = await join(pieces[::-1], tmp_path / "joined")

    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")
    assert (summary.pieces, summary.records, summary.bytes_written) == (count, whole.records, whole.bytes_written)
    assert summary.has_manifest


async def test_shares_together_read_and_skip_what_one_run_does(disk: Cluster, tmp_path: Path) -> None:
    whole = await backup(disk, "disk", tmp_path / "whole", snapshot="b", base="a")

    shares = [
        await backup(disk, "disk", tmp_path / f"{number}", snapshot="b", base="a", shard=Shard(number, 3))
        for number in (1, 2, 3)
    ]

    for name in ("objects_planned", "objects_shared", "objects_read", "bytes_read", "records"):
        assert sum(getattr(share, name) for share in shares) == getattr(whole, name)
    assert [share.piece.number for share in shares if share.piece] == [1, 2, 3]


async def test_a_piece_proves_its_data_and_is_none_without_its_manifest(disk: Cluster, tmp_path: Path) -> None:
    _, piece = await make_pieces(disk, tmp_path, 2)

    report = await verify([piece])

    (found,) = report.files
    assert report.is_proved
    assert found.piece is not None
    assert (found.piece.number, found.records) == (2, found.records_digested)
    damaged = bytearray(piece.read_bytes())
    damaged[-1] ^= 1
    piece.write_bytes(damaged)
    assert [error.split(":")[0] for error in (await verify([piece])).files[0].problems.messages] != []
    manifest_path(piece).unlink()
    assert not (await verify([piece])).is_good


async def test_what_is_no_file_is_streamed_to_the_same_end(
    disk: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backup(disk, "disk", tmp_path / "whole", snapshot="b")
    pieces = await make_pieces(disk, tmp_path, 3)
    monkeypatch.setattr(module, "JoinableTarget", int)
    monkeypatch.setattr(module, "_READ_SIZE", 300_000)

    await join(pieces, tmp_path / "joined")

    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")


@pytest.fixture
def key(tmp_path: Path) -> Any:
    """A key that decrypts, which also stands in the file ``key``."""
    made = load_pyrage().x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{made}\n")
    return made


async def test_compressed_and_encrypted_pieces_join_to_the_plain_backup(
    disk: Cluster, tmp_path: Path, key: Any
) -> None:
    layers = Layers(zstd_level=1, recipients=(str(key.to_public()),))
    await backup(disk, "disk", tmp_path / "whole", snapshot="b", dialect=Dialect.DOG)
    pieces = await make_pieces(disk, tmp_path, 3, dialect=Dialect.DOG, layers=layers)

    await join(pieces, tmp_path / "joined", access=Access(identities=(str(tmp_path / "key"),)))

    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")


async def test_plain_pieces_join_to_a_compressed_backup_in_either_dialect(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 3, dialect=Dialect.COLLIE)

    await join(pieces, tmp_path / "joined", layers=Layers(zstd_level=1))

    report = await verify([tmp_path / "joined"])
    assert (report.is_proved, report.files[0].dialect) == (True, Dialect.COLLIE)
    assert (tmp_path / "joined").read_bytes().startswith(b"\x28\xb5\x2f\xfd")


@pytest.mark.parametrize("cut", [-512, None])
async def test_a_stream_of_another_length_than_the_manifest_says_is_damage(
    disk: Cluster, tmp_path: Path, key: Any, cut: int | None
) -> None:
    pieces = await make_pieces(disk, tmp_path, 2)
    content = pieces[1].read_bytes()
    other = content[:cut] + b"more" * (cut is None)
    pieces[1].write_bytes(load_pyrage().encrypt(other, [key.to_public()]))

    with pytest.raises(BackupDamaged, match=rf"piece2: at offset .*: expected {len(content)} bytes"):
        await join(pieces, tmp_path / "joined", access=Access(identities=(str(tmp_path / "key"),)))
    assert "joined" not in left_in(tmp_path)


async def test_a_target_that_patches_nothing_takes_either_dialect(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 2, dialect=Dialect.COLLIE)

    await backup(disk, "disk", tmp_path / "whole", snapshot="b")
    target = CollectingTarget()

    summary = await join(pieces, target)

    assert not target.can_patch
    assert target.data == (tmp_path / "whole").read_bytes()
    assert (summary.dialect, summary.has_manifest) == (Dialect.COLLIE, False)


async def test_pieces_in_an_object_store_join_there_and_on_disk(disk: Cluster, tmp_path: Path) -> None:
    access = Access(memory_store=MemoryStore())
    await backup(disk, "disk", tmp_path / "whole", snapshot="b")
    pieces = [f"memory://box/piece{number}" for number in (1, 2, 3)]
    for number, piece in enumerate(pieces, 1):
        await backup(disk, "disk", piece, snapshot="b", shard=Shard(number, 3), access=access)

    await join(pieces, tmp_path / "joined", access=access)
    await join(pieces, "memory://box/joined", access=access)

    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")
    assert (await verify(["memory://box/joined"], chain_options=ChainOptions(access=access))).is_proved
    with pytest.raises(PieceMissing):
        await join(pieces[:2], tmp_path / "other", access=access)


async def test_progress_ends_with_all_bytes(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 3)
    seen: list[Progress] = []

    await join(pieces, tmp_path / "joined", on_progress=seen.append)

    total = sum(piece.stat().st_size for piece in pieces)
    assert [seen[-1].bytes_done, seen[-1].bytes_planned] == [total, total]
    assert all(one.bytes_done < other.bytes_done for one, other in itertools.pairwise(seen))


async def test_missing_and_doubled_pieces_are_refused_by_name(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 3)
    before = left_in(tmp_path)

    with pytest.raises(PieceMissing, match="piece 2 of 3 is missing"):
        await join([pieces[0], pieces[2]], tmp_path / "joined")
    with pytest.raises(PieceDoubled, match=r"piece1 and .*piece1 are both piece 1 of 3"):
        await join([*pieces, pieces[0]], tmp_path / "joined")

    assert left_in(tmp_path) == before


async def test_a_piece_of_another_snapshot_with_the_same_tags_is_foreign(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 3)
    (tmp_path / "other").mkdir()
    await disk.expect_success(messages.delete_vdi("disk", tag="b"), "deleting it")
    await disk.create_snapshot("disk", "b")
    others = await make_pieces(disk, tmp_path / "other", 3)

    with pytest.raises(PieceForeign, match=r"other/piece2 is no piece of the backup that .*piece1 is of: snapshot"):
        await join([pieces[0], others[1], pieces[2]], tmp_path / "joined")


async def test_a_piece_of_another_number_of_pieces_is_foreign(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 3)
    (tmp_path / "other").mkdir()
    others = await make_pieces(disk, tmp_path / "other", 4)

    with pytest.raises(PieceForeign, match="pieces: expected 3, got 4"):
        await join([pieces[0], others[1], pieces[2]], tmp_path / "joined")


async def test_what_is_no_piece_is_refused(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 2)
    await backup(disk, "disk", tmp_path / "whole", snapshot="b")

    with pytest.raises(PieceNeeded, match="whole is no piece of a backup: it is a whole one"):
        await join([*pieces, tmp_path / "whole"], tmp_path / "joined")
    manifest_path(pieces[0]).unlink()
    with pytest.raises(PieceNeeded, match="piece1 is no piece of a backup: it has no manifest"):
        await join(pieces, tmp_path / "joined")
    with pytest.raises(SourceMissing):
        await join([tmp_path / "none"], tmp_path / "joined")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileNeeded):
        await join([tmp_path / "fifo"], tmp_path / "joined")


@pytest.mark.parametrize("part", ["data", "manifest"])
async def test_a_truncated_piece_is_refused_before_anything_is_written(
    disk: Cluster, tmp_path: Path, part: str
) -> None:
    pieces = await make_pieces(disk, tmp_path, 2)
    cut = pieces[1] if part == "data" else manifest_path(pieces[1])
    cut.write_bytes(cut.read_bytes()[:-1])

    with pytest.raises(BackupDamaged, match=cut.name):
        await join(pieces, tmp_path / "joined")

    assert "joined" not in left_in(tmp_path)


async def test_data_of_a_piece_that_was_changed_is_found_by_verify_of_the_joined_file(
    disk: Cluster, tmp_path: Path
) -> None:
    pieces = await make_pieces(disk, tmp_path, 2)
    data = bytearray(pieces[0].read_bytes())
    data[OBJECT // 2] ^= 1
    pieces[0].write_bytes(data)

    await join(pieces, tmp_path / "joined")

    assert not (await verify([tmp_path / "joined"])).is_good


async def test_a_file_that_exists_is_replaced_only_when_told(disk: Cluster, tmp_path: Path) -> None:
    pieces = await make_pieces(disk, tmp_path, 2)
    (tmp_path / "joined").write_bytes(b"old")

    with pytest.raises(TargetExists):
        await join(pieces, tmp_path / "joined")
    await join(pieces, tmp_path / "joined", replace=True)
    assert (await verify([tmp_path / "joined"])).is_proved
    with pytest.raises(OwnInput):
        await join(pieces, pieces[0], replace=True)


async def test_a_hyper_volume_is_not_cut_into_pieces(cluster: Cluster, tmp_path: Path) -> None:
    vdi_id = await cluster.create_vdi("hyper", OBJECTS * OBJECT, block_size_shift=20, store_policy=1)
    await cluster.write_object(inode_oid(vdi_id), btree.pack_node_header(btree.LEAF, 0), TABLE_OFFSET, copies=1)
    inode = await cluster.find_vdi("hyper")
    await cluster.write_object(inode_oid(vdi_id), replace(inode, snap_ctime=1).pack(), copies=1)

    with pytest.raises(HyperVolume, match="is not backed up in pieces"):
        await backup(cluster, "hyper", tmp_path / "piece", snapshot=1, shard=Shard(1, 2))


async def test_a_piece_needs_a_snapshot_one_backup_one_process_and_a_manifest(disk: Cluster, tmp_path: Path) -> None:
    for arguments in ({"live": True}, {"snapshot": "b", "processes": 2}):
        with pytest.raises(ValueError, match="expected"):
            await backup(disk, "disk", tmp_path / "piece", shard=Shard(1, 2), **arguments)
    with pytest.raises(ValueError, match="expected a manifest"):
        await backup(disk, "disk", NullTarget(), snapshot="b", shard=Shard(1, 2))


async def test_a_piece_of_small_memory_is_the_same(disk: Cluster, tmp_path: Path) -> None:
    await backup(disk, "disk", tmp_path / "whole", snapshot="b", base="a", options=WindowOptions(memory=1 << 20))
    pieces = await make_pieces(disk, tmp_path, OBJECTS, base="a", options=WindowOptions(memory=1 << 20))

    await join(pieces, tmp_path / "joined")

    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")
