"""What info says of a file, as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.command import Command, start
from tests.damage import flip


@pytest.fixture
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in a place where it is later than in UTC."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_info_tells_what_a_file_is(command: Command, backups: list[Path]) -> None:
    outcome = command("info", backups[1])

    assert (outcome.code, outcome.err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in outcome.out.decode().splitlines())
    assert told["format"] == "collie"
    assert told["records"] == "5"
    assert told["vdi"].startswith("disk, 8.0 MiB")
    assert told["of"].startswith("snapshot 2 'b' of VDI 'disk' (vdi id ")
    assert told["base"].startswith("snapshot 1 'a' of VDI 'disk' (vdi id ")


@pytest.mark.usefixtures("vienna")
def test_info_tells_the_time_of_a_snapshot_here_and_in_utc(command: Command, backups: list[Path]) -> None:
    told = command("info", backups[0]).out.decode()

    utc, here = re.search(r"created (\S{16})", told), re.search(r"taken +(\S+ \S+) CET\n", told)
    assert utc is not None
    assert here is not None
    assert datetime.fromisoformat(here[1]) == datetime.fromisoformat(utc[1]) + timedelta(hours=1)


def test_info_without_a_manifest_says_so(command: Command, backups: list[Path]) -> None:
    Path(f"{backups[0]}.manifest").unlink()

    assert b"manifest  none" in command("info", backups[0]).out


def test_info_lists_records(command: Command, backups: list[Path]) -> None:
    header, first, *_ = command("info", "--records", backups[1]).out.decode().splitlines()

    assert header.split()[:3] == ["IDX", "OFFSET", "LENGTH"]
    assert first.split()[:3] == ["1", "0", "512"]


@pytest.mark.parametrize("options", [(), ("--records",)], ids=["summary", "records"])
def test_info_as_json_is_one_object(command: Command, backups: list[Path], options: tuple[str, ...]) -> None:
    told = json.loads(command("info", "--json", *options, backups[1]).out)

    assert (told["records"], told["manifest"]["base"]["tag"]) == (5, "a")
    if options:
        assert [record["idx"] for record in told["record_list"]] == [1, 2, 3, 5, 6]


def test_info_reads_from_a_pipe(backups: list[Path]) -> None:
    process = start("info", "--json", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(backups[1].read_bytes() + b"more", timeout=30)

    told = json.loads(out)
    assert (process.returncode, told["records"], told["trailing_bytes"]) == (0, 5, 4)


def test_info_of_a_damaged_file_names_the_offset(command: Command, backups: list[Path]) -> None:
    flip(backups[0], 5)

    outcome = command("info", backups[0])

    assert outcome.code == 1
    assert "at offset 4: expected magic" in outcome.err
