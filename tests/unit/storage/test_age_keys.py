from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyrage
import pytest

from asyncbackup.errors import ExtraMissing, KeyUnusable, SourceMissing, SourceUnreadable
from asyncbackup.storage import age_keys
from asyncbackup.storage.age_keys import load_pyrage, read_identities, read_recipients
from tests.keys import make_key, make_ssh_key

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs the program ssh-keygen")


def test_recipients_are_keys_or_files_of_them(tmp_path: Path) -> None:
    one, two, three = (make_key(tmp_path, name).recipient for name in ("one", "two", "three"))
    (tmp_path / "file").write_text(f"# ours\n\n{two}\n  {three}\n")

    assert read_recipients([one, str(tmp_path / "file")]) == (one, two, three)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_keys_of_ssh_are_taken(tmp_path: Path, kind: str) -> None:
    key = make_ssh_key(tmp_path, kind)

    assert read_recipients([str(key.identity.with_suffix(".pub"))]) == (key.recipient,)
    encrypted = pyrage.encrypt(b"content", [pyrage.ssh.Recipient.from_str(key.recipient)])
    assert pyrage.decrypt(encrypted, read_identities([str(key.identity)])) == b"content"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "file holds no key"),
        ("age1nonsense", "line 1 of .*file is no public key"),
        ("\nssh-ed25519 AAAAnonsense", "line 2 of .*file is no public key"),
        ("ssh-dss AAAA", "is no public key"),
        ("x" * (2 << 20), "too long"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "file").write_text(content)

    with pytest.raises(KeyUnusable, match=problem):
        read_recipients([str(tmp_path / "file")])


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        read_recipients([str(tmp_path / "none")])


def test_a_pipe_of_identities_is_refused_because_they_are_read_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(SourceUnreadable, match="is a pipe, and this is read more than once"):
        read_identities([str(tmp_path / "fifo")])


@pytest.mark.parametrize("read", [read_recipients, read_identities])
def test_a_private_key_in_the_wrong_place_is_not_shown(tmp_path: Path, read: object) -> None:
    key = make_key(tmp_path)

    with pytest.raises(KeyUnusable, match="is a private key itself") as caught:
        read([key.secret])  # type: ignore[operator]
    assert key.secret not in str(caught.value)


def test_a_file_of_private_keys_is_no_recipient_and_not_shown(tmp_path: Path) -> None:
    key = make_key(tmp_path)

    with pytest.raises(KeyUnusable, match=r"line 4 of .* is a private key itself") as caught:
        read_recipients([str(key.identity)])
    assert key.secret not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("AGE-SECRET-KEY-1NONSENSE\n", "line 1 of .* is no private key"),
        ("age1nonsense\n", "line 1 of .* is a public key: the private one decrypts"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n-----END OPENSSH PRIVATE KEY-----\n",
            "is no private key of ssh",
        ),
        ("age-encryption.org/v1\n-> scrypt", "is itself encrypted"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", "is itself encrypted"),
    ],
)
def test_identities_that_cannot_decrypt_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "file").write_text(content)

    with pytest.raises(KeyUnusable, match=problem) as caught:
        read_identities([str(tmp_path / "file")])
    assert "NONSENSE" not in str(caught.value)
    assert caught.value.__cause__ is None


@needs_ssh_keygen
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    key = make_ssh_key(tmp_path, passphrase="secret")

    with pytest.raises(KeyUnusable, match="is protected by a passphrase"):
        read_identities([str(key.identity)])


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(age_keys, "import_module", fail)

    with pytest.raises(ExtraMissing, match="pyrage, which encrypts and decrypts, is not installed") as caught:
        load_pyrage()
    assert caught.value.extra == "age"
