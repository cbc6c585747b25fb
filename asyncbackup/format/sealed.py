r"""Lines that say what something equals, sealed with a digest, sans-IO.

Each is one line of ASCII that ends with ``\n``: a JSON object without spaces outside of strings, whose last field
``digest`` is the xxh3_128 of all that stands before the digest's first digit. The same content is always written in the
same way, so that no change of a byte stays unnoticed. docs/formats.md describes the fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import xxhash

from asyncbackup.format.bounds import check_time, shown
from asyncbackup.format.identity import Identity

_DIGEST_FIELD: Final = ',"digest":"'
_DIGEST: Final = re.compile("[0-9a-f]{32}")


class _Encodable(Protocol):
    def encode(self) -> bytes: ...


_Decoded = TypeVar("_Decoded", bound=_Encodable)


def seal(fields: dict[str, Any]) -> bytes:
    covered = json.dumps(fields, separators=(",", ":"))[:-1] + _DIGEST_FIELD
    return f'{covered}{xxhash.xxh3_128_hexdigest(covered.encode())}"}}\n'.encode()


def unseal(line: bytes, kind: str, version: int, make: Callable[[dict[str, Any]], _Decoded]) -> _Decoded:
    """Read a line. Raises ValueError unless ``encode`` of the result writes the same line, byte for byte."""
    try:
        fields = json.loads(line)
        if fields[kind] != version:
            raise ValueError(f"expected version {version}, got {shown(fields[kind])}")
        decoded = make(fields)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected a JSON object of another form ({error})") from error
    if decoded.encode() != line:
        raise ValueError("its digest is wrong: it was changed, or was not written completely")
    return decoded


def read_identity(fields: Any) -> Identity:
    identity = Identity(**fields)
    for text in (identity.vdi, identity.vdi_id, identity.tag):
        read_text(text)
    for time in (identity.created, identity.cluster):
        if time is not None:
            read_text(time)
    read_number(identity.id)
    return identity


def read_number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError(f"expected a number of at most 64 bits, got {type(value).__name__}")
    return value


def read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {shown(value)}")
    return value


def read_time(name: str, value: Any) -> str:
    check_time(name, read_text(value))
    return read_text(value)


def read_digest(value: Any) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError(f"expected a digest of 32 hex digits, got {shown(value)}")
    return read_text(value)
