"""Every verb reads and writes backups in an object store as it does files, and nobody sees a secret."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncbackup.sheep import MemoryStore
from asyncbackup.storage.access import STORE_OPTIONS_VARIABLE
from tests.cli.command import Command, Served, large_store, serving, start
from tests.disks import LARGE, OBJECT, PARTS
from tests.folders import left_in
from tests.keys import make_key
from tests.object_stores import SECRET, Request, S3Server, always, cut, fail, forbid, name_store, times


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server that the environment names."""

    s3: S3Server
    name: str

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, content: bytes) -> None:
        self.s3.backend.put_object(self.name, key, content)

    @property
    def content(self) -> dict[str, bytes]:
        return {key: self.s3.content(self.name, key) for key in self.s3.objects(self.name)}

    @property
    def is_empty(self) -> bool:
        """Whether there is neither an object nor an upload."""
        return not self.s3.objects(self.name) and not self.s3.uploads(self.name)


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    name_store(s3.endpoint, monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, "max_retries=2")
    return Bucket(s3, s3.new_bucket())


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in left_in(folder)}


def back_up(command: Command, served: Served, *arguments: object) -> None:
    outcome = command("backup", "disk", *arguments, "-p", served.port)
    assert outcome.code == 0, outcome.err


@pytest.fixture
def chain(bucket: Bucket, command: Command, served: Served) -> list[str]:
    """A full backup in the bucket, and its increment."""
    made = [bucket.url("vm/full"), bucket.url("vm/increment")]
    back_up(command, served, made[0], "-s", "a")
    back_up(command, served, made[1], "-s", "b", "-F", "a")
    return made


def test_a_backup_in_a_store_is_the_file_that_a_pipe_gets(
    bucket: Bucket, chain: list[str], command: Command, served: Served, tmp_path: Path
) -> None:
    back_up(command, served, tmp_path / "full", "-s", "a", "--format", "dog")
    back_up(command, served, tmp_path / "increment", "-s", "b", "-F", "a", "--format", "dog")
    assert bucket.content == {f"vm/{name}": content for name, content in files(tmp_path).items()}


def test_verify_proves_a_chain_in_a_store(chain: list[str], command: Command) -> None:
    outcome = command("verify", *chain, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["proved"]


def test_verify_compares_a_chain_with_the_cluster(chain: list[str], command: Command, served: Served) -> None:
    assert command("verify", *chain, "--against", "disk", "-s", "b", "-p", served.port).code == 0


@pytest.mark.parametrize("place", [100, 16 + 24 + OBJECT // 2, -100])
def test_verify_finds_damage_in_a_store(bucket: Bucket, chain: list[str], command: Command, place: int) -> None:
    content = bytearray(bucket.content["vm/full"])
    content[place] ^= 1
    bucket.put("vm/full", bytes(content))
    assert command("verify", chain[0]).code == 1


def test_verify_finds_a_changed_header_in_a_store(bucket: Bucket, chain: list[str], command: Command) -> None:
    content = bytearray(bucket.content["vm/full"])
    content[8 + 16 + OBJECT] ^= 2  # the index of the second record
    bucket.put("vm/full", bytes(content))
    outcome = command("verify", chain[0])
    assert outcome.code == 1
    assert "its manifest has another record here" in outcome.out.decode() + outcome.err


def test_verify_finds_that_an_object_is_cut_short(bucket: Bucket, chain: list[str], command: Command) -> None:
    bucket.put("vm/full", bucket.content["vm/full"][:-1000])
    assert command("verify", chain[0]).code == 1


def test_info_reads_little_of_a_large_backup(bucket: Bucket, chain: list[str], command: Command) -> None:
    bucket.s3.requests.clear()
    outcome = command("info", chain[0], "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["records"] == 5
    assert len(bucket.s3.requests) <= 8


def test_restore_makes_a_vdi_of_a_chain_in_a_store(chain: list[str], command: Command, tmp_path: Path) -> None:
    with serving(MemoryStore()) as other:
        assert command("restore", *chain, "--to", "whole", "-p", other.port).code == 0
        assert command("restore", chain[0], "--to", "copy", "--take-snapshot", "a", "-p", other.port).code == 0
        assert (
            command("restore", chain[1], "--to", "copy", "--onto", "--take-snapshot", "b", "-p", other.port).code == 0
        )
        outcome = command("verify", *chain, "--against", "copy", "-s", "b", "--assume-base", "-p", other.port)
        assert outcome.code == 0, outcome.err


def test_a_restore_from_a_store_is_resumed_only_with_a_journal_elsewhere(
    chain: list[str], command: Command, tmp_path: Path
) -> None:
    with serving(MemoryStore()) as other:
        arguments = ("restore", *chain, "--to", "copy", "-p", other.port, "--resume")
        refused = command(*arguments)
        assert refused.code == 64
        assert "--resume needs --journal: no journal stands beside backups in an object store" in refused.err
        assert command(*arguments, "--journal", tmp_path / "journal").code == 0


def test_export_makes_the_same_image_from_a_store_as_from_files(
    bucket: Bucket, chain: list[str], command: Command, tmp_path: Path
) -> None:
    for key, content in bucket.content.items():
        (tmp_path / Path(key).name).write_bytes(content)
    assert command("export", *chain, "--to", tmp_path / "one").code == 0
    assert command("export", tmp_path / "full", tmp_path / "increment", "--to", tmp_path / "other").code == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_an_image_is_rolled_forward_from_a_store(chain: list[str], command: Command, tmp_path: Path) -> None:
    assert command("export", *chain, "--to", tmp_path / "whole").code == 0
    assert command("export", chain[0], "--to", tmp_path / "rolled").code == 0
    rolled = tmp_path / "rolled"
    assert command("export", chain[1], "--to", rolled, "--base-image", rolled).code == 0
    assert (tmp_path / "rolled").read_bytes() == (tmp_path / "whole").read_bytes()


def test_merge_makes_the_same_in_a_store_as_in_files(
    bucket: Bucket, chain: list[str], command: Command, tmp_path: Path
) -> None:
    for key, content in bucket.content.items():
        (tmp_path / Path(key).name).write_bytes(content)
    assert command("merge", *chain, "--to", bucket.url("merged")).code == 0
    local = [tmp_path / "full", tmp_path / "increment"]
    assert command("merge", *local, "--to", tmp_path / "merged", "--format", "dog").code == 0
    assert bucket.content["merged"] == (tmp_path / "merged").read_bytes()
    assert bucket.content["merged.manifest"] == (tmp_path / "merged.manifest").read_bytes()


def test_convert_writes_the_other_format_out_of_a_store_and_back(
    bucket: Bucket, chain: list[str], command: Command, tmp_path: Path
) -> None:
    assert command("convert", chain[0], "--to", tmp_path / "collie", "--format", "collie").code == 0
    assert command("convert", tmp_path / "collie", "--to", bucket.url("again"), "--format", "dog").code == 0
    assert bucket.content["again"] == bucket.content["vm/full"]


def test_convert_writes_a_diff_for_ceph_into_a_store(
    bucket: Bucket, chain: list[str], command: Command, tmp_path: Path
) -> None:
    assert command("convert", chain[0], "--to", bucket.url("diff"), "--format", "rbd-diff").code == 0
    assert command("convert", chain[0], "--to", tmp_path / "diff", "--format", "rbd-diff").code == 0
    assert bucket.content["diff"] == (tmp_path / "diff").read_bytes()


def test_several_backups_go_to_a_store_and_a_disk_in_one_pass(
    bucket: Bucket, command: Command, served: Served, tmp_path: Path
) -> None:
    url = bucket.url("increment")
    back_up(command, served, tmp_path / "full", "-s", "b", "--also", f"{url}=a")
    assert command("verify", url).code == command("verify", tmp_path / "full").code == 0


def test_a_layer_goes_to_a_store_and_comes_back(bucket: Bucket, command: Command, served: Served) -> None:
    back_up(command, served, bucket.url("small"), "-s", "a", "--zstd")
    assert command("verify", bucket.url("small")).code == 0
    assert bucket.content["small"].startswith(b"\x28\xb5\x2f\xfd")


def test_an_encrypted_chain_in_a_store_is_found_and_read_with_the_key(
    bucket: Bucket, chain: list[str], command: Command, served: Served, tmp_path: Path
) -> None:
    key = make_key(tmp_path)
    layers = ("--zstd", "--encrypt", key.recipient)
    back_up(command, served, bucket.url("vault/full"), "-s", "a", *layers)
    back_up(command, served, bucket.url("vault/increment"), "-s", "b", "-F", "a", *layers)
    for name in ("full", "full.manifest", "increment", "increment.manifest"):
        assert bucket.content[f"vault/{name}"].startswith(b"age-encryption.org/v1\n")

    found = command("export", f"{bucket.url('vault')}@b", "--to", tmp_path / "image", "--identity", key.identity)
    plain = command("export", *chain, "--to", tmp_path / "plain")

    assert (found.code, plain.code) == (0, 0), found.err
    assert (tmp_path / "image").read_bytes() == (tmp_path / "plain").read_bytes()


def test_pieces_in_a_store_are_joined_in_a_store(
    bucket: Bucket, command: Command, served: Served, tmp_path: Path
) -> None:
    pieces = [bucket.url(f"piece{number}") for number in (1, 2)]
    for number, piece in enumerate(pieces, 1):
        back_up(command, served, piece, "-s", "a", "--shard", f"{number}/2", "--format", "dog")
    back_up(command, served, tmp_path / "whole", "-s", "a", "--format", "dog")
    assert command("join", *pieces, "--to", bucket.url("whole")).code == 0
    assert {name: bucket.content[name] for name in files(tmp_path)} == files(tmp_path)


def test_a_url_of_a_file_is_its_path(command: Command, served: Served, tmp_path: Path) -> None:
    back_up(command, served, f"file://{tmp_path}/full", "-s", "a")
    assert left_in(tmp_path) == ["full", "full.manifest"]
    assert command("verify", f"file://{tmp_path}/full").code == 0


def test_what_exists_is_refused_and_replaced_only_by_force(bucket: Bucket, command: Command, served: Served) -> None:
    bucket.put("full", b"old")
    arguments = ("backup", "disk", bucket.url("full"), "-s", "a", "-p", served.port)
    refused = command(*arguments)
    assert (refused.code, bucket.content) == (3, {"full": b"old"})
    assert f"{bucket.url('full')}: exists already" in refused.err
    assert command(*arguments, "--dry-run").code == 3
    assert command(*arguments, "--force").code == 0
    assert command("verify", bucket.url("full")).code == 0


def test_a_dry_run_writes_nothing(bucket: Bucket, command: Command, served: Served) -> None:
    back_up(command, served, bucket.url("full"), "-s", "a", "--dry-run")
    assert bucket.is_empty


def test_an_input_is_not_replaced(bucket: Bucket, chain: list[str], command: Command) -> None:
    before = bucket.content
    outcome = command("merge", *chain, "--to", chain[0], "--force")
    assert outcome.code == 1
    assert bucket.content == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume needs a file: an object store keeps nothing of an interrupted run"),
        (["--checkpoint", "1G"], "--checkpoint needs a file: an object store keeps nothing of an interrupted run"),
        (["--workers", "2"], "is in an object store, which takes bytes of one process"),
        (["--manifest", "elsewhere"], "that of a file or an object stands beside it"),
        (["--format", "collie"], "it cannot go to an object store; use --format dog"),
        (["--zstd", "--format", "collie"], "--zstd cannot go back there; use --format dog"),
    ],
)
def test_what_a_store_cannot_do_is_refused_before_anything_is_read(
    bucket: Bucket, command: Command, served: Served, arguments: list[str], message: str
) -> None:
    outcome = command("backup", "disk", bucket.url("full"), "-s", "a", "-p", served.port, *arguments)
    assert outcome.code == 64
    assert message in outcome.err
    assert bucket.is_empty
    assert not [request for request in bucket.s3.requests if request.method in ("PUT", "POST")]


@pytest.mark.parametrize("verb", ["merge", "convert"])
def test_no_verb_reads_anything_for_a_collie_backup_in_a_store(bucket: Bucket, command: Command, verb: str) -> None:
    outcome = command(verb, "missing", "--to", bucket.url("full"), "--format", "collie")
    assert outcome.code == 64
    assert "it cannot go to an object store; use --format dog" in outcome.err


def test_a_collie_backup_beside_another_cannot_go_to_a_store(bucket: Bucket, command: Command, tmp_path: Path) -> None:
    also = ("--also", bucket.url("b"), "--format", "collie", "-p", "1")
    assert command("backup", "disk", tmp_path / "a", "-s", "a", *also).code == 64


@pytest.mark.parametrize(
    ("command_line", "option"),
    [
        (["export", "file", "--to", "s3://backups/image"], "--to"),
        (["merge", "file", "--to", "out", "--base-image", "s3://backups/image"], "--base-image"),
        (["verify", "file", "--identity", "s3://backups/key"], "--identity"),
    ],
)
def test_what_must_be_a_file_is_no_url(command: Command, command_line: list[str], option: str) -> None:
    outcome = command(*command_line)
    assert outcome.code == 64
    assert option in outcome.err
    assert "expected a file of this machine, got a URL of an object store" in outcome.err


def test_a_url_of_nothing_known_is_wrong_use(command: Command) -> None:
    outcome = command("info", "ftp://host/file")
    assert outcome.code == 64
    assert "expected a path or a URL with s3://, gs://, az:// or file://" in outcome.err


def test_what_is_not_there_is_missing(bucket: Bucket, command: Command) -> None:
    outcome = command("info", bucket.url("none"))
    assert outcome.code == 5
    assert bucket.url("none") in outcome.err


def test_a_store_that_permits_nothing_is_a_system_failure(bucket: Bucket, command: Command, served: Served) -> None:
    bucket.s3.faults.append(always(forbid, lambda _: True))
    assert command("info", bucket.url("full")).code == 2
    outcome = command("backup", "disk", bucket.url("full"), "-s", "a", "-p", served.port)
    assert outcome.code == 2
    assert "the store does not permit this" in outcome.err


@pytest.mark.parametrize(
    "option", ["secret_access_key=x", "AWS_SESSION_TOKEN=x", "account_key=x", "endpoint=http://u:x@h"]
)
def test_a_secret_in_a_command_line_is_refused(command: Command, option: str) -> None:
    outcome = command("info", "s3://backups/full", "--store-option", option)
    assert outcome.code == 64
    assert f"set it in {STORE_OPTIONS_VARIABLE}, as KEY=VALUE" in outcome.err


def test_a_variable_that_holds_no_options_is_named_but_not_shown(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, "region=us-east-1 s3cr3t")
    outcome = command("info", "s3://backups/full")
    assert outcome.code == 64
    assert f"expected KEY=VALUE in {STORE_OPTIONS_VARIABLE}" in outcome.err
    assert "s3cr3t" not in outcome.err


def test_options_of_the_store_come_from_their_variable(
    bucket: Bucket, chain: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in bucket.s3.environment:
        monkeypatch.delenv(name)
    options = dict(bucket.s3.options)
    endpoint = options.pop("endpoint")
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, " ".join(f"{key}={value}" for key, value in options.items()))
    assert command("info", chain[0], "--store-option", f"endpoint={endpoint}").code == 0


def test_options_of_the_store_come_from_a_profile(
    bucket: Bucket, chain: list[str], command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in bucket.s3.environment:
        monkeypatch.delenv(name)
    folder = tmp_path / ".aws"
    folder.mkdir()
    keys = bucket.s3.environment
    (folder / "credentials").write_text(
        f"[tests]\naws_access_key_id={keys['AWS_ACCESS_KEY_ID']}\naws_secret_access_key={SECRET}\n"
    )
    (folder / "config").write_text(f"[profile tests]\nregion=us-east-1\nendpoint_url={bucket.s3.endpoint}\n")
    monkeypatch.setenv("AWS_PROFILE", "tests")
    assert command("info", chain[0]).code == 0


def test_an_option_that_no_store_has_is_named(bucket: Bucket, command: Command) -> None:
    outcome = command("info", bucket.url("full"), "--store-option", "endpiont=https://store.example")
    assert outcome.code == 64
    assert "'endpiont' is no option of a store with s3://" in outcome.err


def test_an_extra_that_is_not_installed_is_named(
    bucket: Bucket, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    outcome = command("info", bucket.url("full"))
    assert outcome.code == 1
    assert "pip install 'asyncbackup[object-store]'" in outcome.err


def test_no_secret_is_in_any_output(bucket: Bucket, command: Command, served: Served) -> None:
    """Also not where the store fails in each of its ways, with -v."""
    told = []

    def tell(*arguments: object) -> None:
        outcome = command(*arguments, "-v")
        told.append(outcome.out.decode() + outcome.err)

    backing_up = ("backup", "disk", bucket.url("full"), "-s", "a", "-p", served.port, "--memory", "24M")
    for fault in (fail, forbid, cut):
        for method in ("HEAD", "PUT"):
            bucket.s3.faults[:] = [always(fault, lambda request, method=method: request.method == method)]  # type: ignore[misc]
            tell(*backing_up)
    bucket.s3.faults.clear()
    tell(*backing_up)
    for fault in (fail, forbid, cut):
        bucket.s3.faults[:] = [always(fault, lambda request: request.method == "GET")]
        tell("verify", bucket.url("full"))
    tell("info", f"s3://{SECRET.replace('/', '')}:{SECRET.replace('/', '')}@{bucket.name}/full")
    everything = "\n".join(told)
    assert "the store answered 500" in everything
    assert SECRET not in everything
    assert SECRET.replace("/", "") not in everything
    assert all(SECRET.encode() not in content for content in bucket.content.values())


def test_a_store_that_fails_now_and_then_is_waited_for(bucket: Bucket, command: Command, served: Served) -> None:
    bucket.s3.faults.append(times(2, fail, lambda request: request.method == "HEAD"))
    bucket.s3.faults.append(times(1, cut, lambda request: request.method == "PUT"))
    back_up(command, served, bucket.url("full"), "-s", "a")
    bucket.s3.faults.append(times(2, fail, lambda request: request.method == "GET"))
    assert command("verify", bucket.url("full")).code == 0


@pytest.fixture(scope="module", name="large_store")
def large_store_of_disk() -> MemoryStore:
    return large_store()


@pytest.fixture
def uploading(bucket: Bucket, large_store: MemoryStore) -> Iterator[subprocess.Popen[bytes]]:
    """A backup in a process of its own that has sent parts, and waits for the cluster."""
    begun = threading.Event()

    def note(request: Request) -> None:
        if "partNumber" in request.query:
            begun.set()

    bucket.s3.faults.append(note)
    with (
        serving(large_store, f"read_obj@{(LARGE - 3) * PARTS}+:stall") as served,
        start(
            *("backup", "disk", bucket.url("large"), "-s", "a", "-p", served.port),
            *("--memory", "40M", "--timeout", "3600"),
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            assert begun.wait(20)
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_neither_object_nor_upload(
    bucket: Bucket, uploading: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    uploading.send_signal(number)
    _, err = uploading.communicate(timeout=60)
    assert uploading.returncode == 128 + number, err
    assert bucket.is_empty


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("verify",), ("restore", "--to", "copy"), ("export", "--to", "image"), ("merge", "--to", "merged")]
)
def test_a_signal_does_not_wait_for_a_store_that_is_read(
    bucket: Bucket, large_store: MemoryStore, command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    hanging, released = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if request.method == "GET" and request.key == "large" and len(request.range) > len("bytes=1000000-2000000"):
            hanging.set()
            released.wait(60)

    with serving(large_store) as served:
        back_up(command, served, bucket.url("large"), "-s", "a")
        bucket.s3.faults.append(hold)
        verb, *options = arguments
        port = ["-p", served.port] if verb == "restore" else []
        with start(verb, bucket.url("large"), *options, *port, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            try:
                assert hanging.wait(20)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=20)
            finally:
                released.set()
                process.kill()
    assert process.returncode == 130, err
    assert err.decode().count("\n") == 1, err
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_a_signal_while_a_store_is_asked_is_told_in_one_line(bucket: Bucket, served: Served) -> None:
    """Threads of obstore may have a result to hand over when Python ends. Not each time, so it is tried often."""
    for _ in range(8):
        asked, released = threading.Event(), threading.Event()

        def hold(_: Request, asked: threading.Event = asked, released: threading.Event = released) -> None:
            asked.set()
            released.wait(60)

        bucket.s3.faults[:] = [hold]
        with start(
            "backup", "-q", "disk", bucket.url("a"), "-s", "a", "-p", served.port, stderr=subprocess.PIPE
        ) as process:
            try:
                assert asked.wait(20)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=20)
            finally:
                released.set()
                process.kill()
        assert process.returncode == 130, err
        assert err == b"asyncbackup: stopped by SIGINT; nothing unfinished was left behind\n"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_object(bucket: Bucket, uploading: subprocess.Popen[bytes]) -> None:
    uploading.kill()
    uploading.communicate(timeout=60)
    assert bucket.content == {}


def test_parts_are_sent_while_the_cluster_is_read(
    bucket: Bucket, large_store: MemoryStore, command: Command, tmp_path: Path
) -> None:
    with serving(large_store) as served:
        back_up(command, served, bucket.url("large"), "-s", "a", "--memory", "40M")
        back_up(command, served, tmp_path / "large", "-s", "a", "--format", "dog")
    assert [request for request in bucket.s3.requests if "partNumber=4" in request.query]
    assert bucket.content == files(tmp_path)
