"""Backups in an object store that others made: Ceph's, of which moto is only an imitation."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncbackup.sheep import MemoryStore
from asyncbackup.storage.access import STORE_OPTIONS_VARIABLE
from tests import radosgw
from tests.cli.command import Command, Outcome, Served, disk_store, large_store, serving, start
from tests.disks import LARGE, PARTS
from tests.folders import left_in
from tests.object_stores import name_store
from tests.radosgw import RadosGateway, serving_radosgw

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.skipif(bool(radosgw.MISSING), reason=radosgw.MISSING)]


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server that the environment names."""

    gateway: RadosGateway
    name: str

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    @property
    def content(self) -> dict[str, bytes]:
        return self.gateway.content(self.name)

    @property
    def uploads(self) -> dict[str, int]:
        return self.gateway.uploads(self.name)

    def wait_for_parts(self, key: str, number: int) -> None:
        """Wait until the store has so many parts of an object that is not complete."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.uploads.get(key, 0) >= number:
                return
            time.sleep(0.05)  # The store tells nobody that it got a part.
        raise TimeoutError(f"expected {number} parts of {key}, got {self.uploads}")


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RadosGateway]:
    with serving_radosgw(tmp_path_factory.mktemp("radosgw")) as running:
        yield running


@pytest.fixture
def bucket(gateway: RadosGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    name_store(gateway.endpoint, monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, "max_retries=2")
    return Bucket(gateway, gateway.new_bucket())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(disk_store()) as running:
        yield running


@pytest.fixture(scope="module")
def large() -> MemoryStore:
    return large_store()


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capfdbinary)


def back_up(command: Command, served: Served, *arguments: object) -> Outcome:
    return command("backup", "disk", *arguments, "-p", served.port)


@pytest.fixture
def chain(bucket: Bucket, command: Command, served: Served) -> list[str]:
    """A full backup in the bucket, and its increment."""
    made = [bucket.url("vm/full"), bucket.url("vm/increment")]
    for url, options in zip(made, (("-s", "a"), ("-s", "b", "-F", "a")), strict=True):
        outcome = back_up(command, served, url, *options)
        assert outcome.code == 0, outcome.err
    return made


def test_a_chain_in_a_store_is_that_of_files(
    bucket: Bucket, chain: list[str], command: Command, served: Served, tmp_path: Path
) -> None:
    assert back_up(command, served, tmp_path / "full", "-s", "a", "--format", "dog").code == 0
    assert back_up(command, served, tmp_path / "increment", "-s", "b", "-F", "a", "--format", "dog").code == 0
    assert bucket.content == {f"vm/{name}": (tmp_path / name).read_bytes() for name in left_in(tmp_path)}
    assert bucket.uploads == {}


def test_verify_proves_a_chain(chain: list[str], command: Command) -> None:
    outcome = command("verify", *chain, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["proved"]


def test_a_compressed_backup_is_proved(bucket: Bucket, command: Command, served: Served) -> None:
    url = bucket.url("small")
    assert back_up(command, served, url, "-s", "a", "--zstd").code == 0
    assert bucket.content["small"].startswith(b"\x28\xb5\x2f\xfd")
    assert command("verify", url).code == 0


def test_list_names_what_is_in_a_bucket(bucket: Bucket, chain: list[str], command: Command) -> None:
    outcome = command("list", bucket.url(""))
    assert outcome.code == 0, outcome.err
    assert all(url.encode() in outcome.out for url in ("vm/full", "vm/increment")), outcome.out


def test_a_snapshot_is_found_and_restored(bucket: Bucket, chain: list[str], command: Command) -> None:
    with serving(MemoryStore()) as other:
        restored = command("restore", f"{bucket.url('vm')}@b", "--to", "copy", "-p", other.port)
        assert restored.code == 0, restored.err
        compared = command("verify", *chain, "--against", "copy", "--assume-base", "-p", other.port)
        assert compared.code == 0, compared.err


def test_what_exists_is_refused_and_replaced_only_by_force(bucket: Bucket, command: Command, served: Served) -> None:
    bucket.gateway.s3.put_object(Bucket=bucket.name, Key="full", Body=b"old")
    url = bucket.url("full")
    refused = back_up(command, served, url, "-s", "a")
    assert refused.code == 3
    assert f"{url}: exists already" in refused.err
    assert bucket.content == {"full": b"old"}

    assert back_up(command, served, url, "-s", "a", "--force").code == 0
    assert command("verify", url).code == 0


def test_an_object_of_many_parts_is_that_of_a_file(
    bucket: Bucket, large: MemoryStore, command: Command, tmp_path: Path
) -> None:
    with serving(large) as served:
        assert back_up(command, served, bucket.url("large"), "-s", "a", "--memory", "40M").code == 0
        assert back_up(command, served, tmp_path / "large", "-s", "a", "--format", "dog").code == 0
    etag: str = bucket.gateway.s3.head_object(Bucket=bucket.name, Key="large")["ETag"]
    assert int(etag.strip('"').rpartition("-")[2]) > 3, "the store says of how many parts it is"
    assert bucket.content == {name: (tmp_path / name).read_bytes() for name in left_in(tmp_path)}


@pytest.fixture
def uploading(bucket: Bucket, large: MemoryStore) -> Iterator[subprocess.Popen[bytes]]:
    """A backup in a process of its own that has sent three parts, and waits for the cluster."""
    with (
        serving(large, f"read_obj@{(LARGE - 3) * PARTS}+:stall") as served,
        start(
            *("backup", "disk", bucket.url("large"), "-s", "a", "-p", served.port),
            *("--memory", "40M", "--timeout", "3600"),
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            bucket.wait_for_parts("large", 3)
            yield process
        finally:
            process.kill()


def test_an_interruption_leaves_neither_object_nor_upload(bucket: Bucket, uploading: subprocess.Popen[bytes]) -> None:
    uploading.send_signal(signal.SIGINT)
    _, err = uploading.communicate(timeout=60)
    assert uploading.returncode == 128 + signal.SIGINT, err
    assert (bucket.content, bucket.uploads) == ({}, {})


def test_a_process_that_is_killed_leaves_no_object(bucket: Bucket, uploading: subprocess.Popen[bytes]) -> None:
    uploading.kill()
    uploading.communicate(timeout=60)
    assert bucket.content == {}


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket, command: Command, served: Served) -> None:
    outcome = back_up(command, served, "s3://no-such-bucket/full", "-s", "a")
    assert outcome.code == 2
    assert "s3://no-such-bucket/full: there is no such bucket" in outcome.err


def test_a_backup_in_a_bucket_that_is_not_there_is_missing(bucket: Bucket, command: Command) -> None:
    outcome = command("info", "s3://no-such-bucket/full")
    assert outcome.code == 5
    assert "s3://no-such-bucket/full" in outcome.err


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_a_system_failure(
    bucket: Bucket, command: Command, served: Served, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "WRONGKEY")
    for outcome in (
        back_up(command, served, bucket.url("full"), "-s", "a"),
        command("info", bucket.url("full")),
    ):
        assert outcome.code == 2
        assert f"{bucket.url('full')}: the store does not permit this" in outcome.err
        assert "WRONGKEY" not in outcome.err
    assert bucket.content == {}


@pytest.mark.parametrize(
    ("variable", "code"),
    [("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch")],
)
def test_list_says_what_the_store_has_against_a_key(
    bucket: Bucket, command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, code: str
) -> None:
    monkeypatch.setenv(variable, "WRONGKEY")
    outcome = command("list", bucket.url(""))
    assert outcome.code == 2
    assert f"the store answered 403 Forbidden ({code})" in outcome.err
    assert "WRONGKEY" not in outcome.err
