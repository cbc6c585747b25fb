"""Damage to files: to their bytes, and to the fields of a manifest or a state, whose digest is then right again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import xxhash
from hypothesis import strategies as st

_DIGEST: Final = '"digest":"'


@dataclass(frozen=True)
class Bytes:
    """Sets a byte, cuts bytes out, doubles them, or ends the file, at a place counted from its begin or its end."""

    kind: str
    at: int
    length: int
    value: int

    def __call__(self, data: bytes) -> bytes:
        at = max(0, len(data) + self.at) if self.at < 0 else min(self.at, len(data))
        before, some, after = data[:at], data[at : at + self.length], data[at + self.length :]
        match self.kind:
            case "set":
                return before + bytes([self.value]) * len(some) + after
            case "cut":
                return before + after
            case "double":
                return before + some + some + after
            case _:
                return before


@dataclass(frozen=True)
class JsonField:
    """Gives a field of a line another value, or none, and the last line the digest that goes with it."""

    line: int
    field: int
    value: Any

    def __call__(self, data: bytes) -> bytes:
        lines = data.decode("ascii", errors="replace").splitlines()
        try:
            fields = json.loads(lines[self.line % len(lines)])
        except (ValueError, ZeroDivisionError):
            return data
        if not isinstance(fields, dict) or not fields:
            return data
        name = list(fields)[self.field % len(fields)]
        if self.value is None and self.field % 2:
            del fields[name]
        else:
            fields[name] = self.value
        lines[self.line % len(lines)] = json.dumps(fields, separators=(",", ":"))
        return _sealed("".join(f"{line}\n" for line in lines))


def _sealed(text: str) -> bytes:
    at = text.rfind(_DIGEST)
    if at < 0:
        return text.encode()
    hashed = text[: at + len(_DIGEST)].encode()
    return hashed + xxhash.xxh3_128_hexdigest(hashed).encode() + b'"}\n'


Damage = Callable[[bytes], bytes]

_VALUES: Final = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 512, 1 << 20, 1 << 22, 1 << 32, 1 << 64, 10**400, 1.5, 1e308, float("nan")]),
    st.sampled_from(
        ["", "a", "0", "\ud800", "\x1b[2J", "\u202e", "9" * 5000, "f" * 32, "ffffffff", "2012-09-01T00:00:00Z"]
    ),
    st.sampled_from([[], {}, [[[[]]]], {"id": 1}, {"id": 1, "tag": "", "vdi_id": "1", "created": None}]),
    st.integers(-1, 1 << 70),
)


def apply(changes: Sequence[Damage], data: bytes) -> bytes:
    """Damage some bytes."""
    for change in changes:
        data = change(data)
    return data


damages: Final[st.SearchStrategy[list[Damage]]] = st.lists(
    st.one_of(
        st.builds(
            Bytes,
            st.sampled_from(["set", "cut", "double", "end"]),
            st.integers(-100, 300),
            st.integers(1, 40),
            st.sampled_from([0, 1, 255, 0x0A, 0x22, 0x1B]),
        ),
        st.builds(JsonField, st.integers(-2, 2), st.integers(0, 12), _VALUES),
        st.builds(JsonField, st.integers(-2, 2), st.integers(0, 12), _VALUES),
    ),
    min_size=1,
    max_size=3,
)
"""A few damages, one after another."""
