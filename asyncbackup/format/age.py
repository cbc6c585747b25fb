"""The header of files that age encrypted, and keys as text, sans-IO. Nothing is decrypted here.

The age project describes the format (age-encryption.org/v1). What matters here: lines of ASCII that begin with a
version, a stanza for each recipient, and a line that begins with ``---``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

MAGIC: Final = b"age-encryption.org/v1\n"
ARMOR: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
"""Text that has the same inside, in base64."""

_STANZA: Final = b"-> "
_END: Final = b"---"
_SCRYPT: Final = "scrypt"
_GREASE: Final = "grease"
"""The ending of kinds that mean nothing. They keep readers used to kinds that they don't know."""
_SSH: Final = "ssh-"
_TOLD_OF_TAG: Final = 5
"""Characters of a tag that a fingerprint of ssh begins with. The sixth has only bits that the tag fills up."""

CHUNK_SIZE: Final = 64 << 10
"""Bytes of content in a chunk, each of which is encrypted by itself."""
_NONCE_SIZE: Final = 16
_CHUNK_TAG_SIZE: Final = 16


class Stanza(NamedTuple):
    """What the header has for a recipient: the ``kind`` of key, and what else stands in the line."""

    kind: str
    arguments: tuple[str, ...]


class Header(NamedTuple):
    """Its stanzas, and its ``size`` in bytes."""

    stanzas: tuple[Stanza, ...]
    size: int

    @property
    def has_passphrase(self) -> bool:
        return any(stanza.kind == _SCRYPT for stanza in self.stanzas)

    def offset_of(self, content: int) -> int:
        """Give where the chunk stands that has this byte of the content."""
        return self.size + _NONCE_SIZE + content // CHUNK_SIZE * (CHUNK_SIZE + _CHUNK_TAG_SIZE)

    def recipients(self) -> list[str]:
        """Say for each recipient what can be said: a header hides most keys."""
        told = [stanza for stanza in self.stanzas if not stanza.kind.endswith(_GREASE)]
        counts = dict.fromkeys((_tell(stanza) for stanza in told), 0)
        for stanza in told:
            counts[_tell(stanza)] += 1
        return [what if count == 1 else f"{count} times {what}" for what, count in counts.items()]


def _tell(stanza: Stanza) -> str:
    if stanza.kind == "X25519":
        return "an age key, which the file does not name"
    if stanza.kind.startswith(_SSH) and stanza.arguments:
        return f"the {stanza.kind} key with a fingerprint like SHA256:{stanza.arguments[0][:_TOLD_OF_TAG]}…"
    return f"a key of the kind {stanza.kind}"


def decode_header(beginning: bytes) -> Header | None:
    """Read the header that ``beginning`` begins with; None if it does not end there, or is none."""
    stanzas: list[Stanza] = []
    size = 0
    for line in beginning.split(b"\n")[:-1]:
        size += len(line) + 1
        if line.startswith(_END):
            return Header(tuple(stanzas), size)
        if line.startswith(_STANZA):
            kind, *arguments = line[len(_STANZA) :].decode("ascii", "replace").split(" ")
            stanzas.append(Stanza(kind, tuple(arguments)))
    return None


def significant(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Give the lines of a file of keys, with their numbers, without comments and blank lines."""
    stripped = ((number, line.strip()) for number, line in enumerate(lines, 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]
