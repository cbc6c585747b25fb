r"""Manifests, sans-IO: what proves that a backup is good, beside it as ``FILE.manifest``.

Text, a JSON object a line, each line ended by ``\n``, without spaces outside of strings:

1. ``{"manifest":1,"vdi":…,"size":…,"object_size":…,"copies":…,"copy_policy":…,"dialect":…,"snapshot":…,"base":…,
   "base_size":…}``: sizes in bytes, that of the VDI at the time of the snapshot, and at the time of the base;
   ``dialect`` is ``collie`` or ``dog``; ``snapshot`` and ``base`` are ``{"id":…,"tag":…,"vdi_id":…,"created":…}`` with
   the vdi id in hex and the time in UTC (null for a working VDI); ``base`` and its size are null for a full backup.
2. For each record, in order: ``{"idx":…,"offset":…,"length":…,"data":…,"base":…}``: the record's header, and as 32 hex
   digits the xxh3_128 of its data and of what the base held in that range: zeros if there is no base, null where a
   merge could not know it.
3. ``{"records":…,"data_length":…,"digest":"…"}``: how many records, how many bytes the backup has, and the xxh3_128 of
   all that stands in the manifest before the digest's first digit.

Every byte is either covered by the digest or fixed, so that none can change unnoticed.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

import xxhash

from asyncbackup.format.decoder import Damage
from asyncbackup.format.dialect import Dialect
from asyncbackup.format.record import RecordHeader

VERSION: Final = 1
MAX_LINE: Final = 16384
"""Bytes of the longest line: two names of 255 bytes, each of which may take six characters in JSON, twice over."""

_DIGEST_FIELD: Final = '"digest":"'
_END: Final = b'"}\n'


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Which snapshot; ``created`` in UTC, None for a working VDI."""

    id: int
    tag: str
    vdi_id: str
    created: str | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a backup is of. Sizes in bytes."""

    vdi: str
    size: int
    object_size: int
    copies: int
    copy_policy: int
    dialect: Dialect
    snapshot: SnapshotInfo
    base: SnapshotInfo | None
    base_size: int | None

    def encode(self) -> bytes:
        fields = {"manifest": VERSION} | asdict(self) | {"dialect": self.dialect.value}
        return _line(fields)

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the first line. Raises ValueError if it is none."""
        fields = _object(line, ("manifest", *cls.__slots__))
        version = fields.pop("manifest")
        if version != VERSION:
            raise ValueError(f"expected a manifest of version {VERSION}, got {version!r}")
        for name in ("size", "object_size", "copies", "copy_policy"):
            _number(fields[name])
        if not fields["object_size"]:
            raise ValueError("expected objects of some size, got 0 bytes")
        _text(fields["vdi"])
        snapshot, base = fields.pop("snapshot"), fields.pop("base")
        if base is not None:
            _number(fields["base_size"])
        elif fields["base_size"] is not None:
            raise ValueError(f"expected no size of a base that there is none of, got {fields['base_size']!r}")
        return cls(
            **fields | {"dialect": Dialect(fields["dialect"])},
            snapshot=_snapshot(snapshot),
            base=None if base is None else _snapshot(base),
        )


class RecordDigests(NamedTuple):
    """A record, and as hex the xxh3_128 of its data and of what the base held in its place, None if not known."""

    header: RecordHeader
    data: str
    base: str | None

    def encode(self) -> bytes:
        idx, offset, length = self.header.idx, self.header.offset, self.header.length
        # Written by hand: a million of these are made where json.dumps would take seconds more.
        base = "null" if self.base is None else f'"{self.base}"'
        return (f'{{"idx":{idx},"offset":{offset},"length":{length},"data":"{self.data}","base":{base}}}\n').encode()

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read a record's line. Raises ValueError if it is none."""
        fields = _object(line, ("idx", "offset", "length", "data", "base"))
        header = RecordHeader(*(_number(fields[name]) for name in ("idx", "offset", "length")))
        base = fields["base"]
        return cls(header, _digest(fields["data"]), None if base is None else _digest(base))


class ManifestEncoder:
    """Makes the bytes of a manifest, line by line."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self.records = 0

    def opening(self, subject: Subject) -> bytes:
        return self._hashed(subject.encode())

    def record(self, digests: RecordDigests) -> bytes:
        self.records += 1
        return self._hashed(digests.encode())

    def ending(self, data_length: int) -> bytes:
        """Make the last line; ``data_length`` is the size of the backup in bytes."""
        line = self._hashed(f'{{"records":{self.records},"data_length":{data_length},{_DIGEST_FIELD}'.encode())
        return line + self._hash.hexdigest().encode() + _END

    def _hashed(self, line: bytes) -> bytes:
        self._hash.update(line)
        return line


class Trailer(NamedTuple):
    """The last line of a manifest whose digest is right."""

    records: int
    data_length: int


class ManifestDecoder:
    """Judges the lines of a manifest in order; each with its end of line. Raises Damage with the line's offset."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._offset = 0
        self._records = 0
        self._started = False
        self._complete = False

    def feed(self, line: bytes) -> Subject | RecordDigests | Trailer:
        """Judge the next line; b"" is the end of the file, which must come after the trailer only."""
        try:
            decoded = self._decode(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Damage(self._offset, str(error)) from error
        self._offset += len(line)
        return decoded

    def finish(self) -> None:
        """Take note that the file ends here. Raises Damage if it must not."""
        if not self._complete:
            raise Damage(self._offset, "the manifest ends here; expected more lines")

    def _decode(self, line: bytes) -> Subject | RecordDigests | Trailer:
        if self._complete:
            raise ValueError("expected the end of the manifest")
        if not line.endswith(b"\n"):
            raise ValueError("expected a whole line")
        if not self._started:
            self._started = True
            self._hash.update(line)
            return Subject.decode(line)
        if line.startswith(b'{"records"'):
            return self._trailer(line)
        self._hash.update(line)
        self._records += 1
        return RecordDigests.decode(line)

    def _trailer(self, line: bytes) -> Trailer:
        fields = _object(line, ("records", "data_length", "digest"))
        covered, _, digest = line.partition(_DIGEST_FIELD.encode())
        self._hash.update(covered + _DIGEST_FIELD.encode())
        expected = self._hash.hexdigest()
        if digest != expected.encode() + _END:
            raise ValueError(f"expected the digest {expected}, got {fields['digest']!r}: the manifest was changed")
        if fields["records"] != self._records:
            raise ValueError(f"expected {self._records} records, got {fields['records']!r}")
        self._complete = True
        return Trailer(self._records, _number(fields["data_length"]))


def time_text(time: int) -> str | None:
    """Write an inode's time (seconds << 32 | nanoseconds) in UTC, exact to the nanosecond; None for 0."""
    if not time:
        return None
    return f"{datetime.fromtimestamp(time >> 32, UTC):%Y-%m-%dT%H:%M:%S}.{time & 0xFFFFFFFF:09d}Z"


def _line(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, separators=(",", ":")) + "\n").encode()


def _object(line: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    fields = json.loads(line)
    if not isinstance(fields, dict) or tuple(fields) != names:
        raise ValueError(f"expected an object of {', '.join(names)}")
    return fields


def _snapshot(fields: Any) -> SnapshotInfo:
    if not isinstance(fields, dict):
        raise TypeError(f"expected a snapshot, got {fields!r}")
    snapshot = SnapshotInfo(**fields)
    _number(snapshot.id)
    _text(snapshot.tag)
    _text(snapshot.vdi_id)
    if snapshot.created is not None:
        _text(snapshot.created)
    return snapshot


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number from 0 on, got {value!r}")
    return value


_DIGEST: Final = re.compile("[0-9a-f]{32}")


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"expected a digest of 32 hex digits, got {value!r}")
    return value
