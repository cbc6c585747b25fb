"""What a restored VDI says in its attributes: every byte of it counts, and nothing else is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from asyncbackup.format.identity import Identity
from asyncbackup.format.replica import MAX_LINE, Applying, Origin, applying_key, origin_key
from asyncbackup.format.sealed import seal

IDENTITY = Identity("disk", "a6c1f0", "2026-11-24T03:00:00.000000001Z", "2025-01-02T03:04:05.000000006Z", 3, "monday")
CREATED, TAKEN = "2026-11-25T03:00:00.000000001Z", "2026-11-25T03:10:00.000000002Z"
ORIGIN = Origin(IDENTITY, 8 << 20, CREATED, TAKEN, assumed=False)
DIGEST = "0123456789abcdef" * 2
APPLYING = Applying((DIGEST, DIGEST[::-1]), CREATED, None, "tuesday", is_complete=False, run=DIGEST, beat=3)
LINES = [ORIGIN, APPLYING]
each = pytest.mark.parametrize("said", LINES, ids=["origin", "applying"])


def test_the_keys_name_the_vdi_in_hex() -> None:
    assert origin_key(0xA6C1F0) == "asyncbackup.origin.a6c1f0"
    assert applying_key(0xF) == "asyncbackup.applying.f"


def test_an_origin_is_a_line_of_json() -> None:
    line = ORIGIN.encode()

    assert line.isascii()
    assert line.endswith(b"\n")
    assert list(json.loads(line)) == ["origin", "identity", "size", "created", "snapshot", "assumed", "digest"]


def test_what_is_being_applied_is_a_line_of_json() -> None:
    fields = json.loads(APPLYING.encode())

    assert list(fields) == [
        *("applying", "backups", "created", "assumed", "snapshot", "is_complete", "run", "beat", "digest")
    ]


@pytest.mark.parametrize(
    "origin",
    [
        ORIGIN,
        replace(ORIGIN, snapshot=None, assumed=True),
        replace(ORIGIN, identity=replace(IDENTITY, created=None, cluster=None, tag="", vdi="d\udc80\x1b")),
    ],
)
def test_an_origin_says_what_it_was_made_of(origin: Origin) -> None:
    assert Origin.decode(origin.encode()) == origin


@pytest.mark.parametrize(
    "applying", [APPLYING, replace(APPLYING, snapshot=None, assumed="that it is a", is_complete=True)]
)
def test_what_is_being_applied_says_what_it_was_made_of(applying: Applying) -> None:
    assert Applying.decode(applying.encode()) == applying


def test_the_longest_origin_fits_into_an_attribute() -> None:
    longest = replace(ORIGIN, identity=replace(IDENTITY, vdi="\x01" * 255, tag="\udc80" * 255))

    assert len(longest.encode()) <= MAX_LINE


@each
def test_every_bit_counts(said: Origin | Applying) -> None:
    line = said.encode()
    for at in range(len(line)):
        with pytest.raises(ValueError, match=r"\S"):
            type(said).decode(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :])


@each
def test_a_part_of_a_line_is_none(said: Origin | Applying) -> None:
    for end in range(len(said.encode())):
        with pytest.raises(ValueError, match=r"\S"):
            type(said).decode(said.encode()[:end])


@each
@pytest.mark.parametrize(
    "changed",
    [
        {"origin": 2, "applying": 2},
        {"created": None},
        {"created": "yesterday"},
        {"assumed": 1},
        {"snapshot": 5},
        {"more": 1},
        {"identity": None, "backups": None},
        {"size": -1, "beat": -1},
        {"size": True, "beat": True},
        {"run": "x", "identity": {}},
    ],
)
def test_other_fields_make_no_line(said: Origin | Applying, changed: dict[str, object]) -> None:
    fields = json.loads(said.encode())
    del fields["digest"]
    known = {name: value for name, value in changed.items() if name in fields or name == "more"}
    assert known

    with pytest.raises(ValueError, match=r"\S"):
        type(said).decode(seal(fields | known))
