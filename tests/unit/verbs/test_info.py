from __future__ import annotations

from asyncbackup import Dialect, info
from asyncbackup.engine.reader import Record
from asyncbackup.storage.publication import manifest_path
from tests.chains import Files


async def test_what_the_manifest_says_becomes_plain_values(files: Files) -> None:
    fields = (await info(files.ab)).as_dict()

    assert (fields["dialect"], fields["records"]) == ("collie", 5)
    assert fields["manifest"]["dialect"] == "collie"
    assert fields["manifest"]["base"]["tag"] == "a"


async def test_without_a_manifest_there_is_nothing_in_its_place(files: Files) -> None:
    manifest_path(files.ab).unlink()

    found = await info(files.ab)

    assert found.manifest is None
    assert found.as_dict() == {
        "file": str(files.ab),
        "dialect": "collie",
        "records": 5,
        "data_bytes": found.data_bytes,
        "size": files.ab.stat().st_size,
        "trailing_bytes": 0,
        "manifest": None,
        "missing": [],
        "layers": [],
    }


async def test_each_record_is_told_in_order(files: Files) -> None:
    told: list[int] = []

    async def note(record: Record) -> None:
        told.append(record.header.idx)

    found = await info(files.ab, dialect=Dialect.COLLIE, on_record=note)

    assert told == [1, 2, 3, 5, 6]
    assert len(told) == found.records
