"""Tells URLs from paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup.storage.location import ObjectLocation, fault_of_object, fault_of_url, find_object, to_path


def test_a_url_of_a_store_names_a_bucket_and_an_object() -> None:
    assert find_object("s3://backups/vm1/monday") == ObjectLocation("s3", "backups", "vm1/monday")


@pytest.mark.parametrize("name", ["/backup/vm1", "vm1", "./s3://backups/vm1", "s3:/backups/vm1", "-", ""])
def test_what_is_no_url_names_no_object(name: str) -> None:
    assert find_object(name) is None
    assert fault_of_url(name) is None


def test_a_path_names_no_object() -> None:
    assert find_object(Path("s3://backups/vm1")) is None


def test_a_location_is_shown_as_it_was_typed() -> None:
    assert str(find_object("gs://backups/vm1 50%/ä")) == "gs://backups/vm1 50%/ä"


def test_what_belongs_to_an_object_stands_beside_it() -> None:
    assert str(ObjectLocation("az", "box", "a/b").beside(".manifest")) == "az://box/a/b.manifest"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///backup/vm1", "/backup/vm1"),
        ("file://localhost/backup/vm%201", "/backup/vm 1"),
        ("FILE:///backup", "/backup"),
        ("/backup/vm%201", "/backup/vm%201"),
        ("s3://backups/vm1", "s3://backups/vm1"),
    ],
)
def test_a_url_of_a_file_becomes_a_path(url: str, path: str) -> None:
    assert to_path(url) == path


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://host/file", "expected a path or a URL with s3://, gs://, az:// or file://, got one with http://"),
        ("file://elsewhere/file", "a file:// URL names a file of this machine, as file:///PATH"),
        ("s3:///vm1", "expected s3://BUCKET/NAME"),
        (
            "s3://backups//vm1",
            "no part of an object's name between slashes can be empty, `.` or `..`",
        ),
        (
            "s3://backups/../vm1",
            "no part of an object's name between slashes can be empty, `.` or `..`",
        ),
        ("s3://backups/vm\n1", "no object has control characters in its name"),
        ("s3://backups/vm\udcff", "an object's name is Unicode"),
    ],
)
def test_a_url_that_names_nothing_is_faulty(url: str, fault: str) -> None:
    assert fault_of_url(url) == fault


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    fault = fault_of_url("s3://key:secret@backups/vm1")
    assert fault == "a URL has no place for keys and passwords: the environment has"


def test_who_names_a_snapshot_right_behind_a_bucket_learns_how_to() -> None:
    assert str(fault_of_url("s3://backups@monday")).endswith("name a snapshot in a bucket as s3://BUCKET/@SNAPSHOT")


@pytest.mark.parametrize("url", ["s3://backups", "s3://backups/", "s3://backups/vm1/"])
def test_a_folder_is_no_object(url: str) -> None:
    location = find_object(url)
    assert location is not None
    assert fault_of_url(url) is None
    assert fault_of_object(location) == "names a folder: name an object in it"
