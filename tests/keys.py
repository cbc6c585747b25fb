"""Keys of age and ssh for tests, made for each of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pyrage


@dataclass(frozen=True)
class Key:
    """A public key, the path of a file with the private one, and what must never be shown of it."""

    recipient: str
    identity: Path
    secret: str


def make_key(folder: Path, name: str = "key") -> Key:
    """Make a key of age."""
    made = pyrage.x25519.Identity.generate()
    path = folder / name
    path.write_text(f"# created: today\n# public key: {made.to_public()}\n\n{made}\n")
    return Key(str(made.to_public()), path, str(made))


def make_ssh_key(folder: Path, kind: str = "ed25519", passphrase: str = "") -> Key:
    """Make a key of ssh."""
    path = folder / f"id_{kind}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "someone", "-f", path], check=True)
    secret = path.read_text().splitlines()[2]
    return Key(path.with_suffix(".pub").read_text().strip(), path, secret)
