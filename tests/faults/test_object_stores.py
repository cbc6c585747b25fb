"""Backups in object stores from Python: the store in memory is handed in, and reading costs few requests."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from asyncbackup import Cluster, backup, convert, merge, verify
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import MemoryTooSmall, NotResumable, OwnInput, PatchNeeded, StoreMisconfigured, TargetExists
from asyncbackup.format import Dialect
from asyncbackup.storage import Access
from asyncbackup.verbs.info import info
from tests.chains import Files
from tests.disks import make_disk
from tests.object_stores import S3Server

URL = "memory://box/vm1"


@pytest.fixture
def access() -> Access:
    return Access(memory_store=MemoryStore())


def names(access: Access) -> list[str]:
    assert access.memory_store is not None
    return sorted(found["path"] for found in obstore.list(access.memory_store).collect())


def put(access: Access, url: str, file: Path) -> None:
    assert access.memory_store is not None
    obstore.put(access.memory_store, url.removeprefix("memory://"), file.read_bytes())


async def test_a_backup_goes_to_memory_and_is_proved(cluster: Cluster, access: Access) -> None:
    await make_disk(cluster)
    await backup(cluster, "disk", URL, snapshot="a", dialect=Dialect.DOG, access=access)
    assert names(access) == ["box/vm1", "box/vm1.manifest"]
    assert (await verify([URL], chain_options=ChainOptions(access=access))).is_proved


async def test_an_object_that_exists_is_replaced_only_if_asked_for(cluster: Cluster, access: Access) -> None:
    await make_disk(cluster)
    await backup(cluster, "disk", URL, snapshot="a", dialect=Dialect.DOG, access=access)
    with pytest.raises(TargetExists):
        await backup(cluster, "disk", URL, snapshot="b", dialect=Dialect.DOG, access=access)
    await backup(cluster, "disk", URL, snapshot="b", dialect=Dialect.DOG, access=access, replace=True)
    found = await info(URL, access=access)
    assert found.manifest is not None
    assert found.manifest.identity.tag == "b"


async def test_a_format_that_is_completed_at_its_beginning_is_refused(cluster: Cluster, access: Access) -> None:
    await make_disk(cluster)
    with pytest.raises(PatchNeeded):
        await backup(cluster, "disk", URL, snapshot="a", dialect=Dialect.COLLIE, access=access)
    assert names(access) == []


async def test_nothing_is_resumed_in_a_store(cluster: Cluster, access: Access) -> None:
    with pytest.raises(NotResumable, match="it is in an object store"):
        await backup(cluster, "disk", URL, snapshot="a", dialect=Dialect.DOG, access=access, resume=True)


async def test_a_program_without_a_store_in_memory_is_told(cluster: Cluster) -> None:
    with pytest.raises(StoreMisconfigured, match="memory:// is a store within one program"):
        await backup(cluster, "disk", URL, snapshot="a", dialect=Dialect.DOG)


async def test_a_store_needs_memory_for_its_parts(cluster: Cluster, access: Access) -> None:
    await make_disk(cluster)
    with pytest.raises(MemoryTooSmall):
        await backup(
            *(cluster, "disk", URL),
            snapshot="a",
            dialect=Dialect.DOG,
            access=access,
            options=WindowOptions(memory=4 << 20),
        )
    assert names(access) == []


async def test_backups_of_either_format_are_read_from_a_store(access: Access, files: Files) -> None:
    urls = [f"memory://box/{path.name}" for path in files.all]
    for url, path in zip(urls, files.all, strict=True):
        put(access, url, path)
        put(access, f"{url}.manifest", path.with_name(f"{path.name}.manifest"))
    assert (await verify(urls, chain_options=ChainOptions(access=access))).is_proved
    await merge(urls, files.folder / "merged", chain_options=ChainOptions(access=access))
    await merge(files.all, files.folder / "expected")
    assert (files.folder / "merged").read_bytes() == (files.folder / "expected").read_bytes()


async def test_a_backup_without_a_manifest_is_read_from_a_store(access: Access, files: Files) -> None:
    put(access, URL, files.a)
    options = ChainOptions(object_size=1 << 20, access=access)
    assert (await verify([URL], chain_options=options)).is_good
    await convert(URL, files.folder / "converted", dialect=Dialect.DOG, chain_options=options)
    await convert(files.a, files.folder / "expected", dialect=Dialect.DOG)
    assert (files.folder / "converted").read_bytes() == (files.folder / "expected").read_bytes()


async def test_a_store_does_not_replace_what_it_reads(access: Access, files: Files) -> None:
    put(access, URL, files.a)
    with pytest.raises(OwnInput):
        await merge([URL], URL, replace=True, dialect=Dialect.DOG, chain_options=ChainOptions(access=access))


async def test_verifying_takes_a_request_for_each_object(s3: S3Server, files: Files) -> None:
    access = Access(s3.options)
    bucket = s3.new_bucket()
    await convert(files.a, f"s3://{bucket}/a", dialect=Dialect.DOG, chain_options=ChainOptions(access=access))
    s3.requests.clear()
    report = await verify([f"s3://{bucket}/a"], chain_options=ChainOptions(access=access))
    assert report.is_proved
    # Five records of 1 MiB come four at a time; what is at the beginning and the end is read beside them.
    assert s3.count_requests("GET", "a") <= 5


async def test_listing_what_a_backup_holds_takes_few_requests(s3: S3Server, files: Files) -> None:
    access = Access(s3.options)
    bucket = s3.new_bucket()
    await convert(files.a, f"s3://{bucket}/a", dialect=Dialect.DOG, chain_options=ChainOptions(access=access))
    s3.requests.clear()
    assert (await info(f"s3://{bucket}/a", access=access)).records == 5
    assert s3.count_requests("GET", "a") <= 3
