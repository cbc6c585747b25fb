"""The files beside a raw image, sans-IO: ``IMAGE.state`` and ``IMAGE.rolling``. Each is a sealed line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import xxhash

from asyncbackup.format.bounds import shown
from asyncbackup.format.identity import Identity
from asyncbackup.format.sealed import read_digest, read_identity, read_number, read_text, seal, unseal

MAX_STATE: Final = 8192
"""Bytes of the longest state: two names of 255 bytes, each of which may take six characters in JSON, and some more."""

MAX_MARKER: Final = 1 << 20
"""Bytes of the longest marker: it has 35 for each backup that is being applied."""

_NS: Final = 1_000_000_000
_MODIFIED: Final = re.compile(r"([0-9]{1,11})\.([0-9]{9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageState:
    """What an image equals, and what shows whether somebody wrote to it after that.

    ``size`` is that of the VDI at the time of the snapshot, and so of the image, in bytes. ``modified_ns`` is the time
    at which the image was modified, in nanoseconds since 1970. ``assumed``: the image was made on a base that nothing
    proved and that somebody vouched for.
    """

    identity: Identity
    size: int
    modified_ns: int
    assumed: bool

    @property
    def digest(self) -> str:
        """The xxh3_128 of all of it, in hex."""
        return xxhash.xxh3_128_hexdigest(self.encode())

    def is_of(self, size: int, modified_ns: int) -> bool:
        """Tell whether an image of this size that was modified then still is what the state says."""
        return (size, modified_ns) == (self.size, self.modified_ns)

    def encode(self) -> bytes:
        return seal(
            {
                "state": 1,
                "identity": asdict(self.identity),
                "size": self.size,
                # As `stat -c %.9Y` prints it: a number of so many digits is rounded by many readers of JSON.
                "modified": f"{self.modified_ns // _NS}.{self.modified_ns % _NS:09d}",
                "assumed": self.assumed,
            }
        )

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the bytes of a state. Raises ValueError if they are not a state."""
        return unseal(line, "state", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        modified = _MODIFIED.fullmatch(fields["modified"])
        if modified is None:
            raise ValueError(f"expected a time in seconds, got {shown(fields['modified'])}")
        return cls(
            read_identity(fields["identity"]),
            read_number(fields["size"]),
            int(modified[1]) * _NS + int(modified[2]),
            fields["assumed"] is True,
        )


@dataclass(frozen=True, slots=True)
class Marker:
    """Which backups are being applied to which image, and on what grounds.

    ``backups`` are the xxh3_128 of their manifests, oldest first. The image is known by its ``inode`` number, by the
    ``size`` in bytes that it had before, and by ``state``: the digest of the state beside it at that time, None if
    there was no state. ``assumed`` says in words what was assumed of the image; None: all was proved.
    """

    backups: tuple[str, ...]
    inode: int
    size: int
    state: str | None
    assumed: str | None

    def encode(self) -> bytes:
        return seal({"rolling": 2} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read all that stands in a marker. Raises ValueError if it is none."""
        return unseal(line, "rolling", 2, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(
            tuple(read_digest(digest) for digest in fields["backups"]),
            read_number(fields["inode"]),
            read_number(fields["size"]),
            None if fields["state"] is None else read_digest(fields["state"]),
            None if fields["assumed"] is None else read_text(fields["assumed"]),
        )


@dataclass(frozen=True, slots=True)
class Exporting:
    """How much of a new image is made: a line of its journal.

    ``backups`` are the xxh3_128 of their manifests, oldest first; they determine the whole image. It will have ``size``
    bytes. All objects whose index is below ``done`` are on disk.
    """

    backups: tuple[str, ...]
    size: int
    done: int

    def encode(self) -> bytes:
        return seal({"exporting": 1} | asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read a line of the journal. Raises ValueError if it is not such a line."""
        return unseal(line, "exporting", 1, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(
            tuple(read_digest(digest) for digest in fields["backups"]),
            read_number(fields["size"]),
            read_number(fields["done"]),
        )


@dataclass(frozen=True, slots=True)
class OldMarker:
    """A marker of version 1, which does not say which image it is about. It is read, but not written any more."""

    backups: tuple[str, ...]

    BEGINNING = b'{"rolling": 1,'

    def encode(self) -> bytes:
        return (json.dumps({"rolling": 1, "backups": self.backups}) + "\n").encode()

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read all that stands in a marker. Raises ValueError if it is none."""
        return unseal(line, "rolling", 1, lambda fields: cls(tuple(map(read_digest, fields["backups"]))))


def decode_marker(line: bytes) -> Marker | OldMarker:
    """Read a marker of version 1 or 2. Raises ValueError if the bytes are not a marker."""
    return OldMarker.decode(line) if line.startswith(OldMarker.BEGINNING) else Marker.decode(line)
