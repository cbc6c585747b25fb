"""Keys of age and of ssh: recipients, which encrypt, and identities, which decrypt. No message shows an identity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from asyncbackup.errors import ExtraMissing, KeyUnusable
from asyncbackup.format.age import ARMOR, MAGIC, significant
from asyncbackup.storage.opening import open_regular

_MAX_SIZE: Final = 1 << 20
"""Bytes of a file of keys. A larger file is something else."""

MAX_RECIPIENTS: Final = 40
"""With so many of the longest keys of ssh, a header is still no longer than one that is read."""

_PEM: Final = "-----BEGIN "
_AGE_RECIPIENT: Final = "age1"
_SSH_RECIPIENTS: Final = ("ssh-ed25519 ", "ssh-rsa ")
_AGE_IDENTITY: Final = "AGE-SECRET-KEY-"


def load_pyrage() -> ModuleType:
    """Give the library that encrypts, which is loaded late: few starts need it. Raises ExtraMissing."""
    try:
        return import_module("pyrage")
    except ImportError as error:
        raise ExtraMissing("age", "pyrage", "encrypts and decrypts") from error


def read_recipients(given: Sequence[str]) -> tuple[str, ...]:
    """Give the public keys that ``given`` holds: each is a key of age or ssh, or the path of a file of them.

    Blocks. Raises SourceMissing, SourceUnreadable, KeyUnusable, ExtraMissing.
    """
    found = []
    for each in given:
        _refuse_secret(each, "what was named as a recipient")
        if _is_key(each):
            parse_recipient(each, f"'{each}'")
            found.append(each)
        else:
            lines = significant(_read_text(each).splitlines())
            if not lines:
                raise KeyUnusable(each, "holds no key")
            for number, line in lines:
                parse_recipient(line, f"line {number} of {each}")
                found.append(line)
    return tuple(found)


def _refuse_secret(text: str, name: str) -> None:
    """Raise KeyUnusable, which does not show it, if a private key stands where something else is expected."""
    if text.upper().startswith(_AGE_IDENTITY) or _PEM in text:
        raise KeyUnusable(name, "is a private key itself: keep it in a file that only you can read, and name the file")


def _is_key(text: str) -> bool:
    return text.startswith((_AGE_RECIPIENT, *_SSH_RECIPIENTS))


def parse_recipients(keys: Sequence[str]) -> list[Any]:
    """Make of public keys what pyrage takes. Raises KeyUnusable and ExtraMissing."""
    if len(keys) > MAX_RECIPIENTS:
        raise KeyUnusable("the list of recipients", f"has {len(keys)} keys: expected at most {MAX_RECIPIENTS}")
    return [parse_recipient(key, f"'{key}'") for key in keys]


def parse_recipient(key: str, name: str) -> Any:
    """Make of a public key what pyrage takes. Raises KeyUnusable, which calls it ``name``, and ExtraMissing."""
    pyrage = load_pyrage()
    _refuse_secret(key, name)
    kind = pyrage.ssh if key.startswith(_SSH_RECIPIENTS) else pyrage.x25519
    try:
        return kind.Recipient.from_str(key)
    except pyrage.RecipientError as error:
        raise KeyUnusable(name, "is no public key of age (age1…), and none of ssh (ssh-ed25519, ssh-rsa)") from error


def read_identities(paths: Sequence[str]) -> list[Any]:
    """Read private keys: files of age, or of ssh. Blocks.

    Raises SourceMissing, SourceUnreadable, KeyUnusable, ExtraMissing.
    """
    for path in paths:
        _refuse_secret(path, "what was named as a file of identities")
    return [identity for path in paths for identity in _read_identities(path)]


def _read_identities(path: str) -> list[Any]:
    pyrage, text = load_pyrage(), _read_text(path)
    if text.startswith((MAGIC.decode(), ARMOR.decode())):
        raise KeyUnusable(path, "is itself encrypted: decrypt it to a file that only you can read")
    if text.lstrip().startswith(_PEM):
        return [_parse_ssh(pyrage, path, text)]
    lines = significant(text.splitlines())
    if not lines:
        raise KeyUnusable(path, "holds no key")
    return [_parse_identity(pyrage, f"line {number} of {path}", line) for number, line in lines]


# What pyrage says of a key could show some of it, so it is not passed on.


def _parse_ssh(pyrage: ModuleType, path: str, text: str) -> Any:
    try:
        return pyrage.ssh.Identity.from_buffer(text.encode())
    except pyrage.IdentityError as error:
        if "decrypted" in str(error):
            raise KeyUnusable(path, "is protected by a passphrase, which this program does not ask for") from None
        raise KeyUnusable(path, "is no private key of ssh that age can use: expected ssh-ed25519 or ssh-rsa") from None


def _parse_identity(pyrage: ModuleType, name: str, line: str) -> Any:
    try:
        return pyrage.x25519.Identity.from_str(line)
    except pyrage.IdentityError:
        is_public = _is_key(line)
        problem = "is a public key: the private one decrypts" if is_public else "is no private key of age or ssh"
        raise KeyUnusable(name, problem) from None


def _read_text(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    with os.fdopen(open_regular(name), "rb") as file:
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise KeyUnusable(name, "is too long for a file of keys")
    return content.decode("utf-8", "replace")
