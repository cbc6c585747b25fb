"""Folders of object stores, as a user meets them: list, FOLDER@SNAPSHOT, and files that are named in any order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncbackup.storage import Access, object_store
from asyncbackup.storage.location import ObjectLocation
from asyncbackup.storage.publication import manifest_path
from tests.chains import Files
from tests.cli.command import Command, piped
from tests.object_stores import S3Server, always, fail, name_store


@pytest.fixture
def store(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    name_store(s3.endpoint, monkeypatch)
    return s3


@pytest.fixture
def folder(store: S3Server, files: Files) -> str:
    """The backups of tests.chains, as objects below the URL that this gives."""
    bucket = store.new_bucket()
    for file in files.all:
        for each in (file, manifest_path(file)):
            store.backend.put_object(bucket, f"f/{each.name}", each.read_bytes())
    return f"s3://{bucket}/f"


def bucket_of(folder: str) -> str:
    return folder.split("/")[2]


def test_a_folder_is_listed_without_reading_data(command: Command, folder: str, store: S3Server) -> None:
    said = json.loads(command("list", folder, "--json").out)

    assert [(each["file"], each["on"]) for each in said["backups"]] == [("a", None), ("ab", "a"), ("bc", "ab")]
    assert {request.key for request in store.requests if request.key} == {
        f"f/{name}.manifest" for name in ("a", "ab", "bc")
    }


def test_of_a_long_manifest_only_the_beginning_is_read(
    command: Command, folder: str, store: S3Server, files: Files
) -> None:
    content = manifest_path(files.a).read_bytes() + bytes(300_000)
    store.backend.put_object(bucket_of(folder), "f/a.manifest", content)

    assert b" a\n" in command("list", folder).out

    assert store.count_requests("GET", "f/a.manifest") == 2
    ends = [
        int(request.range.split("-")[1]) for request in store.requests if request.key == "f/a.manifest" if request.range
    ]
    assert max(ends) < 16384


def test_a_bucket_is_listed_with_its_folders(command: Command, folder: str) -> None:
    lines = command("list", f"s3://{bucket_of(folder)}").out.decode().splitlines()

    assert [line.split()[-1] for line in lines[2:5]] == ["f/a", "f/ab", "f/bc"]


def test_a_folder_that_begins_like_another_is_not_that(command: Command, folder: str, store: S3Server) -> None:
    store.backend.put_object(bucket_of(folder), "f2/other", b"")

    assert b"other" not in command("list", folder).out


def test_a_folder_without_objects_has_no_backups(command: Command, folder: str) -> None:
    outcome = command("list", f"{folder}/none")

    assert (outcome.code, outcome.out.decode()) == (0, f"{folder}/none: no backups\n")


def test_more_objects_than_one_answer_names_are_listed(command: Command, folder: str, store: S3Server) -> None:
    for number in range(1100):
        store.backend.put_object(bucket_of(folder), f"f/x{number}", b"")

    assert b" and 1,097 more" in command("list", folder).out


def test_the_files_that_lead_to_a_snapshot_are_found(command: Command, folder: str, files: Files) -> None:
    outcome = command("export", f"{folder}@b", "--to", files.folder / "made.img")

    assert outcome.code == 0, outcome.err
    assert f"used, oldest first: {folder}/a, {folder}/ab\n" in outcome.err
    assert (files.folder / "made.img").read_bytes() == files.images["b"]


def test_a_command_opens_a_store_once(command: Command, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_new = object_store._open_new

    def count_opening(location: ObjectLocation, access: Access) -> object:
        opened.append(location)
        return open_new(location, access)

    monkeypatch.setattr(object_store, "_open_new", count_opening)

    assert command("verify", f"{folder}@c").code == 0

    assert len(opened) == 1


def test_an_object_with_this_sign_in_its_name_is_an_object(
    command: Command, folder: str, store: S3Server, files: Files
) -> None:
    for ending in ("", ".manifest"):
        store.backend.put_object(bucket_of(folder), f"f@b{ending}", Path(f"{files.a}{ending}").read_bytes())

    outcome = command("verify", f"{folder}@b")

    assert (outcome.code, outcome.err) == (0, "")


def test_objects_of_a_chain_come_into_its_order(command: Command, folder: str) -> None:
    outcome = command("verify", f"{folder}/bc", f"{folder}/a", f"{folder}/ab")

    assert outcome.code == 0, outcome.out
    assert f"used in the order that their manifests say: {folder}/a, {folder}/ab, {folder}/bc\n" == outcome.err


def test_a_manifest_that_is_named_with_its_backup_is_left_out(command: Command, folder: str) -> None:
    outcome = command("verify", f"{folder}/a", f"{folder}/a.manifest")

    assert outcome.code == 0
    assert "left out, because they only belong to other files" in outcome.err


def test_a_manifest_whose_backup_is_there_but_was_not_named_is_told(command: Command, folder: str) -> None:
    outcome = command("verify", f"{folder}/a.manifest")

    assert (outcome.code, "which is there, but was not named" in outcome.err) == (5, True)


def test_a_manifest_whose_backup_is_missing_is_told(command: Command, folder: str, store: S3Server) -> None:
    store.backend.delete_object(bucket_of(folder), "f/a")

    outcome = command("verify", f"{folder}/a.manifest")

    assert (outcome.code, "which is missing" in outcome.err) == (5, True)


def test_a_bucket_that_is_not_there_is_an_error(command: Command, store: S3Server) -> None:
    outcome = command("list", "s3://missing-bucket/f")

    assert outcome.code in (2, 5)
    assert "s3://missing-bucket/f: " in outcome.err
    assert store.endpoint not in outcome.err


def test_a_store_that_fails_is_an_error(command: Command, folder: str, store: S3Server) -> None:
    store.faults.append(always(fail, lambda request: request.method == "GET"))

    outcome = command("list", folder, "--store-option", "timeout=1s")

    assert outcome.code == 2
    assert f"{folder}: " in outcome.err


def test_the_process_ends_in_good_order(folder: str) -> None:
    for _ in range(5):
        ended = piped("list", f"{folder}/none")
        assert (ended.returncode, ended.stderr) == (0, b"")
    for _ in range(5):
        assert piped("info", f"{folder}/none").returncode == 5


@pytest.mark.parametrize(
    ("line", "without"),
    [
        (("export", "{}@a", "--to", "image"), "has no backup of a snapshot 'a'; it has disk:c, disk:b"),
        (("export", "{}@c", "--to", "image"), "no backups in"),
        (("list", "{}", "--vdi", "web"), "has no backup of VDI 'web'; it has disk"),
    ],
)
def test_what_a_store_did_not_let_read_is_not_told_as_missing(
    command: Command, folder: str, store: S3Server, line: tuple[str, ...], without: str
) -> None:
    store.faults.append(always(fail, lambda request: (request.method, request.key) == ("GET", "f/a.manifest")))

    outcome = command(*(word.format(folder) for word in line), "--store-option", "max_retries=0")

    assert outcome.code == 2
    assert f"{folder}/a.manifest: the store answered 500" in outcome.err
    assert "; without it, " in outcome.err
    assert without in outcome.err
