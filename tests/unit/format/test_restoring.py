from __future__ import annotations

import json
from dataclasses import replace

import pytest

from asyncbackup.format.image import Exporting
from asyncbackup.format.restoring import MAX_LINE, Restoring

RESTORING = Restoring(("0" * 32, "f" * 32), "vm", 0xABCDEF, (1 << 62) + 1, 0, 1 << 40, 2, 0, 4711)
EXPORTING = Exporting(("0" * 32,), 1 << 40, 4711)


@pytest.mark.parametrize("entry", [RESTORING, EXPORTING, replace(RESTORING, vdi="ü\udcff", parent=7)])
def test_what_is_written_is_read_again(entry: Restoring | Exporting) -> None:
    line = entry.encode()

    assert line.isascii()
    assert line.endswith(b'"}\n')
    assert type(entry).decode(line) == entry


@pytest.mark.parametrize("entry", [RESTORING, EXPORTING])
def test_every_byte_counts(entry: Restoring | Exporting) -> None:
    line = entry.encode()

    for at in range(len(line)):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            type(entry).decode(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :])
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            type(entry).decode(line[:at])


def test_one_is_not_taken_for_the_other() -> None:
    with pytest.raises(ValueError, match="another form"):
        Restoring.decode(EXPORTING.encode())


def test_many_backups_fit_into_a_line() -> None:
    assert len(replace(RESTORING, backups=("0" * 32,) * 25000).encode()) < MAX_LINE


def test_the_fields_are_those_of_the_document() -> None:
    fields = json.loads(RESTORING.encode())

    assert list(fields) == [
        *("restoring", "backups", "vdi", "vdi_id", "created", "parent", "size", "copies", "copy_policy", "done"),
        "digest",
    ]
