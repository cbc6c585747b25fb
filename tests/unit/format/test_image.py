"""What stands beside an image: every byte of it counts, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.format.identity import Identity
from asyncbackup.format.image import MAX_MARKER, MAX_STATE, ImageState, Marker, OldMarker, decode_marker

IDENTITY = Identity("disk", "a6c1f0", "2026-11-24T03:00:00.000000001Z", "2025-01-02T03:04:05.000000006Z", 3, "monday")
STATE = ImageState(IDENTITY, 8 << 20, 1_764_032_000_012_345_678, assumed=False)
DIGEST = "0123456789abcdef" * 2
MARKER = Marker((DIGEST, DIGEST[::-1]), 1234, 8 << 20, DIGEST, None)


def test_a_state_is_a_line_of_json() -> None:
    line = STATE.encode()

    fields = json.loads(line)
    assert line.endswith(b"\n")
    assert b" " not in line
    assert list(fields) == ["state", "identity", "size", "modified", "assumed", "digest"]
    assert fields["identity"]["vdi"] == "disk"
    assert fields["modified"] == "1764032000.012345678"


@pytest.mark.parametrize(
    "state",
    [
        STATE,
        replace(STATE, assumed=True),
        replace(STATE, identity=replace(IDENTITY, created=None, cluster=None, tag="", vdi="d\udc80\x1b")),
        replace(STATE, modified_ns=0),
    ],
    ids=["plain", "assumed", "working VDI of odd name", "1970"],
)
def test_a_state_says_what_it_was_made_of(state: ImageState) -> None:
    assert ImageState.decode(state.encode()) == state


def test_the_longest_state_is_no_longer_than_one_may_be() -> None:
    longest = replace(STATE, identity=replace(IDENTITY, vdi="\x01" * 255, tag="\udc80" * 255))

    assert len(longest.encode()) <= MAX_STATE


@pytest.mark.parametrize("marker", [MARKER, replace(MARKER, state=None, assumed="that it is an image of a")])
def test_a_marker_says_what_it_was_made_of(marker: Marker) -> None:
    assert decode_marker(marker.encode()) == marker


def test_a_marker_of_version_1_is_still_read() -> None:
    line = f'{{"rolling": 1, "backups": ["{DIGEST}"]}}\n'.encode()

    assert decode_marker(line) == OldMarker((DIGEST,))


def test_a_marker_of_many_backups_is_no_longer_than_one_may_be() -> None:
    assert len(replace(MARKER, backups=(DIGEST,) * 20_000).encode()) <= MAX_MARKER


@pytest.mark.parametrize(("size", "modified_ns"), [(STATE.size + 1, STATE.modified_ns), (STATE.size, 0)])
def test_an_image_of_another_size_or_time_is_another(size: int, modified_ns: int) -> None:
    assert STATE.is_of(STATE.size, STATE.modified_ns)
    assert not STATE.is_of(size, modified_ns)


@pytest.mark.parametrize("line", [STATE.encode(), MARKER.encode(), OldMarker((DIGEST,)).encode()])
def test_no_byte_can_change_unnoticed(line: bytes) -> None:
    decode = ImageState.decode if line == STATE.encode() else decode_marker
    intact = decode(line)
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1
        try:
            decoded = decode(bytes(changed))
        except ValueError:
            continue
        # A marker of version 1 has no digest: what it says changes with it.
        assert decoded != intact
        assert isinstance(decoded, OldMarker)
    for end in range(len(line)):
        with pytest.raises(ValueError, match=r"\S"):
            decode(line[:end])
    with pytest.raises(ValueError, match=r"\S"):
        decode(line + b"\n")


def sealed(**fields: object) -> bytes:
    """Change fields of a state or marker, with a digest that is right."""
    from asyncbackup.format.sealed import seal

    line = STATE.encode() if "rolling" not in fields and "inode" not in fields else MARKER.encode()
    whole = json.loads(line) | fields
    del whole["digest"]
    return seal(whole)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null\n",
        b"[]\n",
        b'"state"\n',
        b"[" * 5000 + b"\n",
        b'{"state":' + b"1" * 5000 + b"}\n",
        b"\xff\xfe\n",
        sealed(state=2),
        sealed(size=-1),
        sealed(size=1 << 64),
        sealed(size=True),
        sealed(size=1e3),
        sealed(modified=3),
        sealed(modified="1.5"),
        sealed(modified="-1.000000000"),
        sealed(modified="٣.000000000"),
        sealed(assumed=None),
        sealed(assumed=1),
        sealed(identity=None),
        sealed(identity={"vdi": "disk"}),
        sealed(identity=json.loads(STATE.encode())["identity"] | {"more": 1}),
        sealed(identity=json.loads(STATE.encode())["identity"] | {"created": 5}),
        sealed(identity=json.loads(STATE.encode())["identity"] | {"vdi": None}),
        sealed(more=1),
    ],
)
def test_what_is_no_state_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        ImageState.decode(line)


@pytest.mark.parametrize(
    "line",
    [
        b"of others\n",
        b'{"rolling": 1, "backups": 5}\n',
        b'{"rolling": 1, "backups": [5]}\n',
        b'{"rolling": 1}\n',
        sealed(rolling=3),
        sealed(rolling=2, inode=-1),
        sealed(rolling=2, state="x"),
        sealed(rolling=2, assumed=1),
        sealed(rolling=2, backups=None),
        sealed(rolling=2, backups=DIGEST),
    ],
)
def test_what_is_no_marker_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_marker(line)


@given(st.binary(max_size=200))
def test_noise_is_a_value_error(noise: bytes) -> None:
    for decode in (ImageState.decode, decode_marker):
        with pytest.raises(ValueError, match=r"\S"):
            decode(noise)
