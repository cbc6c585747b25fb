from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncbackup.errors import HalfReplaced, SourceMissing
from asyncbackup.storage import FileSource, open_source
from asyncbackup.storage.backup_source import open_manifest
from asyncbackup.storage.publication import Place, manifest_path
from tests.streams import standard_input


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"data")
    manifest_path(file).write_bytes(b"proof")
    return file


async def test_a_backup_is_opened_with_the_manifest_beside_it(backup: Path) -> None:
    async with open_source(backup) as (data, manifest):
        assert manifest is not None
        assert (await data.peek(9), await manifest.peek(9)) == (b"data", b"proof")
        assert (data.name, manifest.name) == (str(backup), str(manifest_path(backup)))


async def test_where_a_link_leads_stands_the_manifest_too(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(backup)

    async with open_source(tmp_path / "link") as (_, manifest):
        assert manifest is not None
        assert manifest.name == str(manifest_path(backup))


async def test_a_backup_without_a_manifest_has_none(backup: Path) -> None:
    manifest_path(backup).unlink()

    async with open_source(backup) as (_, manifest):
        assert manifest is None


async def test_a_manifest_that_is_not_wanted_is_not_even_looked_for(backup: Path) -> None:
    manifest_path(backup).rename(Place(manifest_path(backup)).old)

    async with open_source(backup, with_manifest=False) as (_, manifest):
        assert manifest is None


async def test_a_manifest_that_is_out_of_the_way_is_told(backup: Path) -> None:
    manifest_path(backup).rename(Place(manifest_path(backup)).old)
    Place(backup).partial.write_bytes(b"half")

    with pytest.raises(HalfReplaced):
        async with open_source(backup):
            pytest.fail("opened")


async def test_a_manifest_that_is_named_goes_before_the_one_beside_it(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")

    async with open_source(backup, manifest=tmp_path / "other") as (_, manifest):
        assert manifest is not None
        assert await manifest.peek(9) == b"other"


async def test_a_named_manifest_that_is_missing_is_told(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="other: no such file"):
        async with open_source(backup, manifest=tmp_path / "other"):
            pytest.fail("opened")


async def test_standard_input_has_the_manifest_that_is_named_or_none(backup: Path) -> None:
    with standard_input(b"piped"):
        async with open_source("-") as (data, manifest):
            assert (data.name, data.size, manifest) == ("standard input", None, None)
            assert await data.peek(9) == b"piped"
        async with open_source("-", manifest=manifest_path(backup)) as (_, manifest):
            assert manifest is not None


async def test_an_entered_source_is_passed_on_and_stays_open(backup: Path) -> None:
    async with FileSource(backup) as source:
        async with open_source(source) as opened:
            assert opened == (source, None)
        assert await source.peek(9) == b"data"


async def test_a_manifest_is_opened_without_its_backup(tmp_path: Path) -> None:
    backup = tmp_path / "pipe"
    os.mkfifo(backup)
    await asyncio.to_thread(manifest_path(backup).write_bytes, b"proof")
    writer = os.open(backup, os.O_RDWR)
    os.write(writer, b"data")

    async with open_manifest(backup) as manifest:
        assert manifest is not None
        assert await manifest.peek(9) == b"proof"

    assert os.read(writer, 9) == b"data"
    os.close(writer)


async def test_what_is_not_beside_anything_has_no_manifest(backup: Path) -> None:
    manifest_path(backup).unlink()

    async with open_manifest("-") as of_input, open_manifest(backup) as beside:
        assert (of_input, beside) == (None, None)
