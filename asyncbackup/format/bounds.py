"""Judges numbers, names and times that come from outside: a manifest, a cluster. Pure.

Everything here raises ValueError with a short message: ``FIELD: expected …, got …``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

MAX_NAME_SIZE: Final = 255
"""Bytes of the longest name or tag: an inode's field has 256, and ends in a zero."""

_TIME: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.[0-9]{9}Z")
_VDI_ID: Final = re.compile("[1-9a-f][0-9a-f]{0,5}")
_DIGEST: Final = re.compile("[0-9a-f]{32}")
_SHOWN: Final = 64
"""Characters of an absurd value that a message shows."""


def check_number(field: str, value: Any, most: int, *, least: int = 0) -> None:
    """Raise ValueError unless ``value`` is a whole number from ``least`` to ``most``."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{field}: expected a number from {least} to {most}, got {shown(value)}")


def check_name(field: str, value: Any) -> None:
    """Raise ValueError unless ``value`` can stand in the name or tag field of an inode.

    Bytes that are not UTF-8 are lone surrogates in ``value``, U+DC80 to U+DCFF. Other bytes must not be written so.
    """
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {shown(value)}")  # noqa: TRY004 - wrong as any other value is
    try:
        encoded = value.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{field}: expected text without lone surrogates, got {shown(value)}") from error
    if encoded.decode(errors="surrogateescape") != value:
        raise ValueError(f"{field}: expected text without needless surrogates, got {shown(value)}")
    if len(encoded) > MAX_NAME_SIZE:
        raise ValueError(f"{field}: expected at most {MAX_NAME_SIZE} bytes of text, got {len(encoded)}")
    if b"\0" in encoded:
        raise ValueError(f"{field}: expected text without zeros, got {shown(value)}")


def shown(value: Any) -> str:
    """Write any value into a message, cut if it is long. Text stands unchanged between quotes."""
    text = value if isinstance(value, str) else ascii(value)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"'{text}'" if isinstance(value, str) else text


def check_vdi_id(field: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a number of at most 24 bits, and not 0, in hex without leading zeros."""
    if not isinstance(value, str) or not _VDI_ID.fullmatch(value):
        raise ValueError(f"{field}: expected 1 to 6 hex digits without leading zeros, got {shown(value)}")


def check_time(field: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a time in UTC, from 1970 to 2106, with all nine digits of nanoseconds."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{field}: expected a time such as 2026-11-22T20:00:00.000000001Z, got {shown(value)}")
    try:
        time = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"{field}: {error}: {value}") from error
    if not 0 <= time.timestamp() < 1 << 32:
        raise ValueError(f"{field}: expected a time from 1970 to 2106, got {value}")


def check_digest(field: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is an xxh3_128 in hex."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"{field}: expected a digest of 32 hex digits, got {shown(value)}")
