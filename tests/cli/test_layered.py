"""Compression and encryption as a user meets them: options, files that other programs read, errors."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncbackup.storage.publication import manifest_path
from tests.chains import Files
from tests.cli.command import Command, Served, piped
from tests.folders import left_in
from tests.keys import Key, make_key, make_ssh_key

BACKUP = ("backup", "-s", "b", "disk")

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="needs the program age")
needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs the program ssh-keygen")


@pytest.fixture
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def reference(command: Command, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backup in the dog format, without layers."""
    path = tmp_path_factory.mktemp("reference") / "plain"
    assert command(*BACKUP, path, "--format", "dog", "-p", served.port).code == 0
    return path


def decoded(*program: object) -> bytes:
    return subprocess.run([str(part) for part in program], check=True, capture_output=True).stdout


@needs_zstd
@pytest.mark.parametrize("options", [["--zstd"], ["--zstd=19", "--threads", "1"], ["--zstd=1", "--workers", "2"]])
def test_zstd_gives_the_backup(
    command: Command, served: Served, tmp_path: Path, reference: Path, options: Sequence[str]
) -> None:
    assert command(*BACKUP, *options, tmp_path / "file", "-p", served.port).code == 0

    assert decoded("zstd", "-dc", tmp_path / "file") == reference.read_bytes()
    assert manifest_path(tmp_path / "file").read_bytes() == manifest_path(reference).read_bytes()
    assert left_in(tmp_path) == ["file", "file.manifest"]


@needs_age
def test_age_gives_the_backup_and_its_manifest(
    command: Command, served: Served, tmp_path: Path, reference: Path, key: Key
) -> None:
    assert command(*BACKUP, tmp_path / "file", "--encrypt", key.recipient, "-p", served.port).code == 0

    for made, plain in ((tmp_path / "file", reference), (manifest_path(tmp_path / "file"), manifest_path(reference))):
        assert decoded("age", "-d", "-i", key.identity, made) == plain.read_bytes()


@needs_age
@needs_zstd
def test_what_is_encrypted_is_compressed_before(
    command: Command, served: Served, tmp_path: Path, reference: Path, key: Key
) -> None:
    assert command(*BACKUP, "--zstd", "--encrypt", key.recipient, tmp_path / "file", "-p", served.port).code == 0

    (tmp_path / "inside").write_bytes(decoded("age", "-d", "-i", key.identity, tmp_path / "file"))
    assert decoded("zstd", "-dc", tmp_path / "inside") == reference.read_bytes()


@pytest.mark.parametrize("options", [["--zstd"], ["--encrypt"], ["--zstd", "--encrypt"]])
@pytest.mark.parametrize("is_piped", [False, True])
def test_readers_find_the_layers(
    command: Command, files: Files, tmp_path: Path, key: Key, options: list[str], *, is_piped: bool
) -> None:
    layers = [part for option in options for part in ([option, key.recipient] if option == "--encrypt" else [option])]
    for number, file in enumerate(files.all):
        made = tmp_path / f"layered{number}"
        assert command("convert", file, "--to", made, "--format", "dog", *layers, "--identity", key.identity).code == 0
    chain = [tmp_path / f"layered{number}" for number in range(3)]

    verified = command("verify", *chain, "--identity", key.identity)
    assert (verified.code, verified.err) == (0, "")
    if is_piped:
        manifests = [part for file in chain[:1] for part in ("--manifest", manifest_path(file))]
        options = ["--to", str(tmp_path / "image"), "--identity", str(key.identity)]
        piped("export", "-", *options, *manifests, data=chain[0].read_bytes())
        assert (tmp_path / "image").read_bytes() == files.images["a"]
    else:
        assert command("export", *chain, "--to", tmp_path / "image", "--identity", key.identity).code == 0
        assert (tmp_path / "image").read_bytes() == files.images["c"]


def test_encrypted_backups_are_put_in_order_by_their_manifests(
    command: Command, files: Files, tmp_path: Path, key: Key
) -> None:
    options = ("--encrypt", key.recipient)
    for file in files.all:
        command("convert", file, "--to", tmp_path / f"{file.name}.age", "--format", "dog", *options)
    chain = [tmp_path / f"{name}.age" for name in ("bc", "a", "ab")]

    outcome = command("export", *chain, "--to", tmp_path / "image", "--identity", key.identity)

    assert outcome.code == 0
    assert "used in the order that their manifests say" in outcome.err


@pytest.mark.parametrize(
    ("options", "layers", "shown"),
    [
        (["--zstd"], ["zstd with a seek table"], "zstd with a seek table"),
        (["--encrypt"], ["age"], "age"),
        (["--zstd", "--encrypt"], ["age", "zstd"], "zstd in age"),
    ],
)
def test_info_shows_the_layers(
    command: Command, files: Files, tmp_path: Path, key: Key, *, options: list[str], layers: list[str], shown: str
) -> None:
    given = [part for option in options for part in ([option, key.recipient] if option == "--encrypt" else [option])]
    command("convert", files.a, "--to", tmp_path / "file", "--format", "dog", *given)

    told = command("info", tmp_path / "file", "--identity", key.identity)
    as_json = command("info", tmp_path / "file", "--identity", key.identity, "--json")

    assert f"layers    {shown}\n" in told.out.decode()
    assert json.loads(as_json.out)["layers"] == layers


def test_without_an_identity_it_says_how_to_name_one(command: Command, files: Files, tmp_path: Path, key: Key) -> None:
    command("convert", files.a, "--to", tmp_path / "file", "--format", "dog", "--encrypt", key.recipient)

    outcome = command("verify", tmp_path / "file")

    assert outcome.code == 1
    assert "this is encrypted with age; name a file with your private key with --identity" in outcome.err


@needs_ssh_keygen
def test_a_wrong_key_is_told_who_can_read_it(command: Command, files: Files, tmp_path: Path, key: Key) -> None:
    ssh = make_ssh_key(tmp_path)
    fingerprint = decoded("ssh-keygen", "-l", "-f", ssh.identity).decode().split()[1]
    options = ("--encrypt", key.recipient, "--encrypt", ssh.recipient)
    command("convert", files.a, "--to", tmp_path / "file", "--format", "dog", *options)

    outcome = command("info", tmp_path / "file", "--identity", make_key(tmp_path, "other").identity)

    assert outcome.code == 1
    assert "none of the identities opens this; it is for an age key, which the file does not name" in outcome.err
    assert fingerprint[: len("SHA256:12345")] in outcome.err


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_keys_of_ssh_do_as_well(command: Command, files: Files, tmp_path: Path, kind: str) -> None:
    ssh = make_ssh_key(tmp_path, kind)
    recipients = tmp_path / "recipients"
    recipients.write_text(f"# those who may read\n\n{ssh.recipient}\n")
    command("convert", files.a, "--to", tmp_path / "file", "--format", "dog", "--encrypt", recipients)

    assert command("verify", tmp_path / "file", "--identity", ssh.identity).code == 0


def test_no_output_shows_a_private_key(
    command: Command, served: Served, tmp_path: Path, key: Key, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    wrong = make_key(tmp_path, "wrong")
    damaged = tmp_path / "damaged"
    damaged.write_text(wrong.secret.replace("1", "1x", 1) + "\n")
    options = ("--zstd", "--encrypt", key.recipient, "-p", served.port)
    outcomes = [
        command(*BACKUP, tmp_path / "file", *options, "-v"),
        command("verify", tmp_path / "file", "--identity", key.identity, "-v"),
        command("info", tmp_path / "file", "--identity", key.identity, "--json"),
        command("verify", tmp_path / "file", "--identity", wrong.identity, "-v", "--json"),
        command("verify", tmp_path / "file", "--identity", damaged, "-v", "--json"),
        command("verify", tmp_path / "file", "--identity", wrong.secret, "--json"),
        command(*BACKUP, tmp_path / "next", "--encrypt", wrong.secret, "-p", served.port, "--json"),
        command(*BACKUP, tmp_path / "next", "--encrypt", damaged, "-p", served.port, "--json"),
    ]

    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 1, 1, 1, 1, 1]
    shown = "".join(outcome.out.decode() + outcome.err for outcome in outcomes) + caplog.text
    for each in (key, wrong):
        assert each.secret[20:40] not in shown


def test_threads_that_memory_is_not_enough_for_are_refused(command: Command, served: Served, tmp_path: Path) -> None:
    given = ("--zstd=19", "--threads", "8", "--memory", "128M", "-p", served.port)
    outcome = command(*BACKUP, tmp_path / "file", *given)

    assert outcome.code == 1
    assert "give it 153.0 MiB with --memory" in outcome.err
    assert "--threads need less" in outcome.err
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--format", "collie", "--zstd"], "--zstd cannot go back there; use --format dog"),
        (["--format", "collie", "--encrypt"], "--encrypt cannot go back there; use --format dog"),
        (["--resume", "--zstd", "--encrypt"], "--resume cannot be combined with --encrypt"),
        (["--checkpoint", "1G", "--encrypt"], "--checkpoint cannot be combined with --encrypt"),
        (["--workers", "2", "--encrypt"], "--workers cannot be combined with --encrypt"),
        (["--threads", "2"], "--threads says how many threads compress: give --zstd as well"),
        (["--zstd=23"], "23"),
        (["--zstd=x"], "x"),
    ],
)
def test_what_cannot_be_combined_is_refused_by_name(
    command: Command, tmp_path: Path, key: Key, options: list[str], problem: str
) -> None:
    given = [part for option in options for part in ([option, key.recipient] if option == "--encrypt" else [option])]

    # Nothing serves at this port: it is refused before that is noticed.
    outcome = command(*BACKUP, tmp_path / "file", *given, "-p", "1")

    assert outcome.code == 64
    assert problem in outcome.err
    assert not left_in(tmp_path)


def test_what_follows_the_option_without_a_level_is_another_argument(
    command: Command, served: Served, tmp_path: Path
) -> None:
    outcome = command("backup", "-s", "b", "-p", served.port, "--zstd", "disk", tmp_path / "file")

    assert outcome.code == 0


def test_several_backups_of_one_pass_are_all_layered(
    command: Command, served: Served, tmp_path: Path, key: Key
) -> None:
    also = f"{tmp_path / 'increment'}=a"
    options = ("--zstd", "--encrypt", key.recipient, "-p", served.port)
    assert command(*BACKUP, tmp_path / "file", "--also", also, *options).code == 0

    for name in ("file", "increment"):
        outcome = command("info", tmp_path / name, "--identity", key.identity)
        assert "layers    zstd in age\n" in outcome.out.decode()


def test_a_layered_backup_goes_to_standard_output(served: Served, files: Files, tmp_path: Path) -> None:
    ran = piped("merge", files.a, "--to", "-", "--zstd")

    assert ran.stdout[:4] == b"\x28\xb5\x2f\xfd"
    assert piped("verify", "-", data=ran.stdout).returncode == 0


def test_to_compare_an_encrypted_backup_it_has_to_be_decrypted(
    command: Command, served: Served, tmp_path: Path, key: Key
) -> None:
    command(*BACKUP, tmp_path / "file", "--encrypt", key.recipient, "-p", served.port)

    outcome = command("verify", tmp_path / "file", "--against", "disk", "-p", served.port, "--identity", key.identity)

    assert outcome.code == 1
    assert "is encrypted, so that it is only read in order" in outcome.err
    assert "decrypt it to a file first, with `age -d`" in outcome.err


def test_a_compressed_backup_is_compared_as_it_is(command: Command, served: Served, tmp_path: Path) -> None:
    command(*BACKUP, tmp_path / "file", "--zstd", "-p", served.port)

    assert command("verify", tmp_path / "file", "--against", "disk", "-p", served.port).code == 0


def test_pieces_and_what_is_joined_of_them_can_be_layered(
    command: Command, served: Served, tmp_path: Path, reference: Path, key: Key
) -> None:
    pieces = [tmp_path / f"piece{number}" for number in (1, 2)]
    for number, piece in enumerate(pieces, 1):
        shard = ("--shard", f"{number}/2", "--zstd", "--encrypt", key.recipient, "-p", served.port)
        assert command(*BACKUP, piece, *shard).code == 0

    assert command("join", *pieces, "--to", tmp_path / "file", "--zstd", "--identity", key.identity).code == 0
    command("convert", tmp_path / "file", "--format", "dog", "--to", tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == reference.read_bytes()
