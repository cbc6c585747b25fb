from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asyncbackup.sheep import FolderStore, Store
from asyncbackup.sheep.store import MAX_OPEN_MAPPINGS, ClusterConfig

OID = 0x00ABCDEF_00000007


def test_a_missing_object_is_none(store: Store) -> None:
    assert store.get(OID) is None


def test_an_object_is_zeros_but_for_its_pieces(store: Store) -> None:
    store.put(OID, 4096, [(0, b"head"), (2, b"AD"), (4000, b"tail")])

    view = store.get(OID)

    assert view is not None
    assert bytes(view) == b"heAD" + bytes(3996) + b"tail" + bytes(92)


def test_a_view_shows_what_is_written_and_takes_no_write_itself(store: Store) -> None:
    store.put(OID, 4096, [])
    view = store.get(OID)

    assert store.write(OID, 10, b"new")

    assert view is not None
    assert view.readonly
    assert bytes(view[9:14]) == b"\0new\0"


def test_writing_into_nothing_says_so(store: Store) -> None:
    assert not store.write(OID, 0, b"new")
    assert store.get(OID) is None


def test_putting_again_replaces_all_of_it(store: Store) -> None:
    store.put(OID, 4096, [(0, b"old")])

    store.put(OID, 8192, [(1, b"new")])

    view = store.get(OID)
    assert view is not None
    assert bytes(view) == b"\0new".ljust(8192, b"\0")


def test_an_object_can_be_made_from_the_one_it_replaces(store: Store) -> None:
    store.put(OID, 4096, [(0, b"old")])

    view = store.get(OID)
    assert view is not None
    store.put(OID, 4096, [(0, view), (1, b"new")])

    again = store.get(OID)
    assert again is not None
    assert bytes(again[:4]) == b"onew"


def test_a_view_outlives_its_object(store: Store) -> None:
    store.put(OID, 4096, [(0, b"data")])
    view = store.get(OID)

    assert store.remove(OID)

    assert view is not None
    assert bytes(view[:4]) == b"data"
    assert store.get(OID) is None


def test_removing_nothing_says_so(store: Store) -> None:
    assert not store.remove(OID)


def test_oids_lists_every_object(store: Store) -> None:
    oids = {OID, 1 << 63 | 5 << 32, 0}
    for oid in oids:
        store.put(oid, 512, [])

    assert set(store.oids()) == oids


def test_space_grows_with_what_is_written(store: Store) -> None:
    before = store.space()

    store.put(OID, 1 << 20, [(0, b"x" * (1 << 20))])

    after = store.space()
    assert after.used - before.used >= 1 << 20
    assert after.size >= after.used


def test_config_is_kept(store: Store) -> None:
    assert store.load_config() is None

    config = ClusterConfig(ctime=5 << 32, copies=2, block_size_shift=22)
    store.save_config(config)

    assert store.load_config() == config


def test_a_folder_keeps_everything_for_the_next_store(tmp_path: Path) -> None:
    first = FolderStore(tmp_path)
    first.save_config(ClusterConfig(1, 2, 3))
    first.put(OID, 4096, [(0, b"data")])
    first.write(OID, 100, b"more")

    second = FolderStore(tmp_path)

    again = second.get(OID)
    assert again is not None
    assert bytes(again[:4]) + bytes(again[100:104]) == b"datamore"
    assert second.load_config() == ClusterConfig(1, 2, 3)


def test_a_folder_forgets_objects_that_were_never_finished(tmp_path: Path) -> None:
    FolderStore(tmp_path)
    (tmp_path / "obj" / f"{OID:016x}.tmp").write_bytes(b"half")

    store = FolderStore(tmp_path)

    assert store.oids() == []
    assert list((tmp_path / "obj").iterdir()) == []


def test_a_folder_that_is_full_keeps_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.put(OID, 512, [(0, b"old")])

    def full(descriptor: int, data: object, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        store.put(OID, 512, [(0, b"new")])

    view = store.get(OID)
    assert view is not None
    assert bytes(view[:3]) == b"old"
    assert len(store.oids()) == 1


def test_a_folder_bounds_its_open_mappings(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    before = open_files()

    for number in range(MAX_OPEN_MAPPINGS + 50):
        store.put(number, 512, [(0, number.to_bytes(4, "little"))])
        view = store.get(number)
        assert view is not None
        del view

    assert open_files() - before <= MAX_OPEN_MAPPINGS
    first = store.get(0)
    assert first is not None
    assert bytes(first[:4]) == bytes(4)


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "cluster.json").write_text("{}")

    with pytest.raises(ValueError, match=r"cluster\.json is no cluster configuration"):
        store.load_config()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
