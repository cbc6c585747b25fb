r"""Manifests, sans-IO. A manifest stands beside a backup as ``FILE.manifest`` and proves that the backup is good.

ASCII text, a JSON object a line, each line ended by ``\n`` and at most 16,384 bytes long, without spaces outside of
strings:

1. ``{"manifest":2,"vdi":…,"cluster":…,"size":…,"object_size":…,"copies":…,"copy_policy":…,"dialect":…,"snapshot":…,
   "base":…,"base_size":…}``: sizes in bytes, that of the VDI at the time of the snapshot, and at the time of the base;
   ``cluster`` is the time at which the cluster was formatted, null where it did not say it; ``dialect`` is ``collie``
   or ``dog``; ``snapshot`` and ``base`` are ``{"id":…,"tag":…,"vdi_id":…,"created":…}`` with the vdi id in hex and the
   time in UTC (null for a working VDI); ``base`` and its size are null for a full backup.
2. For each record, in order: ``{"idx":…,"offset":…,"length":…,"data":…,"base":…}``: the record's header, and as 32 hex
   digits the xxh3_128 of its data and of what the base held in that range, null where that was not read. Behind them
   stands ``"assumed":true`` where the record holds bytes of a base that nobody proved to be the right one.
3. ``{"records":…,"data_length":…,"digest":"…"}``: how many records, how many bytes the backup has, and the xxh3_128 of
   all that stands in the manifest before the digest's first digit.

Version 3 is for a backup that may lack objects which the cluster could not give. ``{"missing":…}`` stands in the place
of a record for each object that was left out, and ``"missing":…`` behind ``"records":…`` says how many these are. A
reader that knows only version 2 refuses it, and so cannot take such a backup for a complete one.

Versions 4 and 5 are for a piece: the records of a range of a backup, without what begins and ends a file. 4 is like 2,
and 5 like 3. Behind ``base_size`` the first line has ``"piece":{"number":…,"count":…,"first":…,"end":…,"planned":…,
"plan":"…"}``: which piece of how many, the range of idx, how many objects the plan of the whole backup has, and the
digest of that plan. ``data_length`` is what the records of the piece take. A reader that knows no pieces refuses it.

Every byte is either covered by the digest or fixed, so that no change stays unnoticed. Nevertheless nothing is trusted:
a number, a name or a time that no VDI can have, or that contradicts another field, is damage with its line and field.

Version 1 has no ``cluster`` and no ``assumed``. It is read, but not written any more.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import xxhash

from asyncbackup.format.bounds import check_digest, check_number, shown
from asyncbackup.format.decoder import MAX_OBJECT_SIZE, Damage
from asyncbackup.format.dialect import Dialect
from asyncbackup.format.identity import Identity
from asyncbackup.format.piece import PieceRange
from asyncbackup.format.record import END_IDX, RECORD_HEADER_SIZE, RecordHeader

VERSION: Final = 2
LACKING_VERSION: Final = 3
"""That of a manifest which may name objects that are missing."""
PIECE_VERSION: Final = 4
LACKING_PIECE_VERSION: Final = 5
"""Those of a piece. Only the number differs: a run that goes on may write one over the other."""
MAX_LINE: Final = 16384
"""Bytes of the longest line: two names of 255 bytes, each of which may take six characters in JSON, twice over."""

MAX_TRAILER: Final = 192
"""Bytes of the longest last line: three numbers, and a digest."""

_DIGEST_FIELD: Final = '"digest":"'
_END: Final = b'"}\n'
_MAX_DIGITS: Final = 20
"""Of a number: that is what 64 bits take."""
_MAX_DATA_LENGTH: Final = (1 << 63) - 1
"""Bytes of the longest file that there can be."""

MIN_OBJECT_SIZE: Final = 1 << 20
_MAX_BYTE: Final = 255
"""Copies and copy policy are a byte each in an inode."""

_SECTOR_SIZE: Final = 512


@dataclass(frozen=True, slots=True)
class Subject:
    """What a backup holds. Sizes in bytes. An impossible value is a ValueError that names the field."""

    size: int
    object_size: int
    copies: int
    copy_policy: int
    dialect: Dialect
    identity: Identity
    """The snapshot, or the working VDI."""
    base_identity: Identity | None
    """The snapshot that the backup is the difference to; None for a full backup."""
    base_size: int | None
    may_lack: bool = False
    """Whether objects that could not be read may be left out: the manifest names them."""
    piece: PieceRange | None = None
    """Which piece of the backup it is; None: it is the whole backup."""

    def __post_init__(self) -> None:
        check_number("object_size", self.object_size, MAX_OBJECT_SIZE, least=MIN_OBJECT_SIZE)
        if self.object_size.bit_count() != 1:
            raise ValueError(f"object_size: expected a power of two, got {self.object_size}")
        # A hyper volume has as many objects as a record can number; others end earlier.
        most = END_IDX * self.object_size
        check_number("size", self.size, most)
        check_number("copies", self.copies, _MAX_BYTE)
        check_number("copy_policy", self.copy_policy, _MAX_BYTE)
        self._check_piece()
        base = self.base_identity
        if base is None:
            if self.base_size is not None:
                raise ValueError(f"base_size: expected null without a base, got {shown(self.base_size)}")
            return
        check_number("base_size", self.base_size, most)
        if base.created is None:
            raise ValueError("base.created: expected a time, got null: a working VDI is no base")
        if (base.vdi, base.cluster) != (self.vdi, self.cluster):
            raise ValueError(f"base: expected a snapshot of the same VDI and cluster, got {base}")

    def _check_piece(self) -> None:
        if self.piece is None:
            return
        try:
            self.piece.check_within(self.object_count)
        except ValueError as error:
            raise ValueError(f"piece.{error}") from error

    @property
    def vdi(self) -> str:
        return self.identity.vdi

    @property
    def cluster(self) -> str | None:
        """When the cluster was formatted; None if nothing says it."""
        return self.identity.cluster

    @property
    def is_full(self) -> bool:
        return self.base_identity is None

    @property
    def object_count(self) -> int:
        """Data objects that the VDI's size spans, the last one perhaps in part."""
        return -(-self.size // self.object_size)

    @property
    def opening(self) -> bytes:
        """What stands before the first record, until it is patched; nothing in a piece."""
        return b"" if self.piece else self.dialect.opening

    @property
    def ending(self) -> bytes:
        """What stands behind the last record; nothing in a piece."""
        return b"" if self.piece else self.dialect.ending

    @property
    def version(self) -> int:
        """That of the manifest."""
        if self.piece is None:
            return LACKING_VERSION if self.may_lack else VERSION
        return LACKING_PIECE_VERSION if self.may_lack else PIECE_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Give what the first line says, as plain values."""
        return {
            "vdi": self.vdi,
            "cluster": self.cluster,
            "size": self.size,
            "object_size": self.object_size,
            "copies": self.copies,
            "copy_policy": self.copy_policy,
            "dialect": self.dialect.value,
            "snapshot": _snapshot_fields(self.identity),
            "base": None if self.base_identity is None else _snapshot_fields(self.base_identity),
            "base_size": self.base_size,
            **({} if self.piece is None else {"piece": self.piece.as_dict()}),
        }

    def encode(self) -> bytes:
        return _line({"manifest": self.version} | self.as_dict())

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the fields of the first line. Raises ValueError if they are wrong."""
        fields = _object(line)
        version = fields.get("manifest")
        if type(version) is int and version > LACKING_PIECE_VERSION:
            newest = LACKING_PIECE_VERSION
            raise ValueError(
                f"manifest: expected version 1 to {newest}, got {shown(version)}: a newer asyncbackup reads it"
            )
        check_number("manifest", version, LACKING_PIECE_VERSION, least=1)
        is_piece = version in (PIECE_VERSION, LACKING_PIECE_VERSION)
        _check_fields(fields, _SUBJECT_FIELDS_1 if version == 1 else (*_SUBJECT_FIELDS, *["piece"] * is_piece))
        try:
            dialect = Dialect(fields["dialect"])
        except ValueError as error:
            raise ValueError(f"dialect: expected collie or dog, got {shown(fields['dialect'])}") from error
        vdi, cluster, base = fields["vdi"], fields.get("cluster"), fields["base"]
        return cls(
            size=fields["size"],
            object_size=fields["object_size"],
            copies=fields["copies"],
            copy_policy=fields["copy_policy"],
            dialect=dialect,
            identity=_identity("snapshot", fields["snapshot"], vdi, cluster),
            base_identity=None if base is None else _identity("base", base, vdi, cluster),
            base_size=fields["base_size"],
            may_lack=version in (LACKING_VERSION, LACKING_PIECE_VERSION),
            piece=PieceRange.from_fields(fields["piece"]) if is_piece else None,
        )


class RecordDigests(NamedTuple):
    """A record, and as hex the xxh3_128 of its data and of what the base held in its place, None if not known.

    ``assumed``: some of the data is of a base that nobody proved to be the right one.
    """

    header: RecordHeader
    data: str
    base: str | None
    assumed: bool = False

    def encode(self) -> bytes:
        idx, offset, length = self.header.idx, self.header.offset, self.header.length
        # Written by hand: a million of these are made where json.dumps would take seconds more.
        base = "null" if self.base is None else f'"{self.base}"'
        assumed = ',"assumed":true' if self.assumed else ""
        return (
            f'{{"idx":{idx},"offset":{offset},"length":{length},"data":"{self.data}","base":{base}{assumed}}}\n'
        ).encode()

    @classmethod
    def decode(cls, line: bytes, version: int = VERSION) -> Self:
        """Read a record's line of a manifest of that version. Raises ValueError if it is none."""
        if usual := _USUAL_RECORD.fullmatch(line):
            idx, offset, length, data, base = usual.groups()
            header = RecordHeader(int(idx), int(offset), int(length))
            _check_header(header)
            return cls(header, data.decode(), None if base is None else base.decode())
        fields = _object(line)
        assumed = "assumed" in fields and version > 1
        _check_fields(fields, (*_RECORD_FIELDS, "assumed") if assumed else _RECORD_FIELDS)
        if assumed and fields["assumed"] is not True:
            raise ValueError(f"assumed: expected true or nothing, got {shown(fields['assumed'])}")
        header = RecordHeader(fields["idx"], fields["offset"], fields["length"])
        _check_header(header)
        check_digest("data", fields["data"])
        if fields["base"] is not None:
            check_digest("base", fields["base"])
        return cls(header, fields["data"], fields["base"], assumed=assumed)


_USUAL_RECORD: Final = re.compile(
    rb'\{"idx":(0|[1-9][0-9]{0,9}),"offset":(0|[1-9][0-9]{0,9}),"length":([1-9][0-9]{0,9}),'
    rb'"data":"([0-9a-f]{32})","base":(?:null|"([0-9a-f]{32})")\}\n'
)
"""A record's line as it is written here. To read it as JSON in general takes five times as long."""


def _check_header(header: RecordHeader) -> None:
    """Raise ValueError if the fields of a record's line are no numbers, or numbers that no record has."""
    check_number("idx", header.idx, END_IDX - 1)
    check_number("offset", header.offset, MAX_OBJECT_SIZE - _SECTOR_SIZE)
    check_number("length", header.length, MAX_OBJECT_SIZE, least=_SECTOR_SIZE)
    for name, number in (("offset", header.offset), ("length", header.length)):
        if number % _SECTOR_SIZE:
            raise ValueError(f"{name}: expected a multiple of {_SECTOR_SIZE}, got {number}")


class Missing(NamedTuple):
    """An object that was left out, because it could not be read."""

    idx: int

    def encode(self) -> bytes:
        return f'{{"missing":{self.idx}}}\n'.encode()

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the line of an object that is missing. Raises ValueError if it is none."""
        fields = _object(line)
        _check_fields(fields, ("missing",))
        check_number("missing", fields["missing"], END_IDX - 1)
        return cls(fields["missing"])


class ManifestEncoder:
    """Makes the bytes of a manifest, line by line; ``may_lack`` for lines of which the first stands elsewhere."""

    def __init__(self, *, may_lack: bool = False) -> None:
        self._hash = xxhash.xxh3_128()
        self.records = 0
        self.missing = 0
        self._may_lack = may_lack

    def opening(self, subject: Subject) -> bytes:
        self._may_lack = subject.may_lack
        return self._hashed(subject.encode())

    def record(self, digests: RecordDigests) -> bytes:
        self.records += 1
        return self._hashed(digests.encode())

    def leave_out(self, missing: Missing) -> bytes:
        assert self._may_lack, "the first line says that something may be missing"
        self.missing += 1
        return self._hashed(missing.encode())

    def ending(self, data_length: int) -> bytes:
        """Make the last line; ``data_length`` is the size of the backup in bytes."""
        missing = f'"missing":{self.missing},' if self._may_lack else ""
        counts = f'{{"records":{self.records},{missing}"data_length":{data_length},'
        line = self._hashed(f"{counts}{_DIGEST_FIELD}".encode())
        return line + self._hash.hexdigest().encode() + _END

    def _hashed(self, line: bytes) -> bytes:
        self._hash.update(line)
        return line


class Trailer(NamedTuple):
    """The last line of a manifest whose digest is right."""

    records: int
    data_length: int
    missing: int = 0


def decode_data_length(end: bytes) -> int:
    """Read off the last bytes of a manifest how many the backup has. No digest is judged. Raises ValueError."""
    length = _object(end[end.rfind(b"\n", 0, -1) + 1 :]).get("data_length")
    check_number("data_length", length, _MAX_DATA_LENGTH)
    assert isinstance(length, int)
    return length


Line = Subject | RecordDigests | Missing | Trailer
"""What a line of a manifest says."""


class ManifestDecoder:
    """Judges the lines of a manifest in order, each with its end of line. Raises Damage with the offset of the line."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._offset = 0
        self._line = 1
        self._subject: Subject | None = None
        self._version = VERSION
        self._records = 0
        self._missing = 0
        self._last_idx = -1
        self._data_length = 0
        self._complete = False

    def feed(self, line: bytes) -> Line:
        """Judge the next line; b"" is the end of the file, which must come after the trailer only."""
        try:
            decoded = self._decode(line)
        except ValueError as error:
            raise Damage(self._offset, f"line {self._line}: {error}") from error
        except RecursionError as error:
            raise Damage(self._offset, f"line {self._line}: expected no arrays or objects in one another") from error
        self._offset += len(line)
        self._line += 1
        return decoded

    def finish(self) -> None:
        """Note that the file ends here. Raises Damage if lines are missing."""
        if not self._complete:
            raise Damage(self._offset, "the manifest ends here; expected more lines")

    def _decode(self, line: bytes) -> Line:
        if self._complete:
            raise ValueError("expected the end of the manifest")
        if not line.endswith(b"\n"):
            raise ValueError("expected a whole line" if len(line) < MAX_LINE else f"expected at most {MAX_LINE} bytes")
        if self._subject is None:
            self._hash.update(line)
            self._subject = Subject.decode(line)
            self._version = _object(line)["manifest"]
            self._data_length = len(self._subject.opening) + len(self._subject.ending)
            return self._subject
        if line.startswith(b'{"records"'):
            return self._trailer(line, self._subject)
        self._hash.update(line)
        if self._subject.may_lack and line.startswith(b'{"missing"'):
            missing = Missing.decode(line)
            self._judge_idx("missing", missing.idx, self._subject)
            self._missing += 1
            return missing
        record = RecordDigests.decode(line, self._version)
        self._judge(record.header, self._subject)
        self._records += 1
        self._data_length += RECORD_HEADER_SIZE + record.header.length
        return record

    def _judge_idx(self, name: str, idx: int, subject: Subject) -> None:
        """Raise ValueError for an object that does not lie inside of the VDI, behind the one before."""
        if idx >= subject.object_count:
            raise ValueError(f"{name}: expected one of the {subject.object_count} objects of the VDI, got {idx}")
        if subject.piece and not subject.piece.first <= idx < subject.piece.end:
            raise ValueError(f"{name}: expected one of {subject.piece.objects}, as {subject.piece} has them, got {idx}")
        if idx <= self._last_idx:
            raise ValueError(f"{name}: expected a number above {self._last_idx}, got {idx}")
        self._last_idx = idx

    def _judge(self, record: RecordHeader, subject: Subject) -> None:
        """Raise ValueError for a record that does not lie inside of the VDI and of an object, behind the one before."""
        self._judge_idx("idx", record.idx, subject)
        if record.length > subject.object_size - record.offset:
            end = record.offset + record.length
            raise ValueError(f"length: expected an end within {subject.object_size} bytes of an object, got {end}")

    def _trailer(self, line: bytes, subject: Subject) -> Trailer:
        fields = _object(line)
        _check_fields(fields, _LACKING_TRAILER_FIELDS if subject.may_lack else _TRAILER_FIELDS)
        covered, _, digest = line.partition(_DIGEST_FIELD.encode())
        self._hash.update(covered + _DIGEST_FIELD.encode())
        expected = self._hash.hexdigest()
        if digest != expected.encode() + _END:
            raise ValueError(f"digest: expected {expected}, got {shown(fields['digest'])}: the manifest was changed")
        expected_counts = {"records": self._records, "missing": self._missing, "data_length": self._data_length}
        for name, counted in expected_counts.items():
            if name not in fields:
                continue
            if type(fields[name]) is not int or fields[name] != counted:
                raise ValueError(f"{name}: expected {counted}, by the lines before, got {shown(fields[name])}")
        self._complete = True
        return Trailer(self._records, self._data_length, self._missing)


_SNAPSHOT_FIELDS: Final = ("id", "tag", "vdi_id", "created")
_SUBJECT_FIELDS: Final = (
    "manifest",
    "vdi",
    "cluster",
    "size",
    "object_size",
    "copies",
    "copy_policy",
    "dialect",
    "snapshot",
    "base",
    "base_size",
)
_SUBJECT_FIELDS_1: Final = tuple(name for name in _SUBJECT_FIELDS if name != "cluster")
_RECORD_FIELDS: Final = ("idx", "offset", "length", "data", "base")
_TRAILER_FIELDS: Final = ("records", "data_length", "digest")
_LACKING_TRAILER_FIELDS: Final = ("records", "missing", "data_length", "digest")


def _snapshot_fields(identity: Identity) -> dict[str, Any]:
    return {name: getattr(identity, name) for name in _SNAPSHOT_FIELDS}


def _identity(name: str, fields: Any, vdi: Any, cluster: Any) -> Identity:
    if not isinstance(fields, dict):
        raise ValueError(f"{name}: expected an object, got {shown(fields)}")  # noqa: TRY004 - wrong as other values are
    try:
        _check_fields(fields, _SNAPSHOT_FIELDS)
        return Identity(vdi=vdi, cluster=cluster, **fields)
    except ValueError as error:
        # The VDI's name and the cluster stand outside of the object.
        outside = str(error).startswith(("vdi:", "cluster:"))
        raise ValueError(str(error) if outside else f"{name}.{error}") from error


class _Unread:
    """A number that no field can have. It is not read."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _whole_number(text: str) -> int | _Unread:
    return int(text) if len(text) <= _MAX_DIGITS else _Unread(text)


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(name for name in fields if names.count(name) > 1))}: expected once, got twice")
    return fields


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_fields, parse_int=_whole_number, parse_float=_Unread, parse_constant=_Unread
)


def _line(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, separators=(",", ":")) + "\n").encode()


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = _JSON.decode(line.decode("ascii"))
    except json.JSONDecodeError as error:
        # Some of the parser's messages end with "at" already.
        raise ValueError(f"expected JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"expected ASCII, got byte 0x{line[error.start]:02x} at column {error.start + 1}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {shown(fields)}")  # noqa: TRY004 - wrong as other values are
    return fields


def _check_fields(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    if tuple(fields) == expected:
        return
    for name in expected:
        if name not in fields:
            raise ValueError(f"{name}: expected this field, got none")
    for name in fields:
        if name not in expected:
            raise ValueError(f"{shown(name)}: expected no such field")
    raise ValueError(f"expected the fields {', '.join(expected)} in this order")
