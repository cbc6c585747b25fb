from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.decoder import Damage
from asyncbackup.format.manifest import (
    ManifestDecoder,
    ManifestEncoder,
    RecordDigests,
    SnapshotInfo,
    Subject,
    Trailer,
    time_text,
)

SUBJECT = Subject(
    vdi="vm",
    size=1 << 30,
    object_size=1 << 22,
    copies=3,
    copy_policy=0,
    dialect=Dialect.DOG,
    snapshot=SnapshotInfo(2, "b", "abcdef", "2026-11-22T20:00:00.000000001Z"),
    base=SnapshotInfo(1, "a", "abcdee", None),
    base_size=1 << 29,
)
RECORD = RecordDigests(RecordHeader(3, 512, 1024), "0" * 32, "f" * 32)
UNKNOWN_BASE = RecordDigests(RecordHeader(4, 0, 512), "1" * 32, None)


def encoded() -> list[bytes]:
    encoder = ManifestEncoder()
    return [encoder.opening(SUBJECT), encoder.record(RECORD), encoder.record(UNKNOWN_BASE), encoder.ending(1584)]


def decode(lines: list[bytes]) -> list[Subject | RecordDigests | Trailer]:
    decoder = ManifestDecoder()
    decoded = [decoder.feed(line) for line in lines]
    decoder.finish()
    return decoded


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(encoded()[0]) | fields, separators=(",", ":")).encode() + b"\n"


def snapshot(**fields: Any) -> dict[str, Any]:
    return asdict(SUBJECT.snapshot) | fields


def test_a_manifest_says_what_was_put_in() -> None:
    assert decode(encoded()) == [SUBJECT, RECORD, UNKNOWN_BASE, Trailer(2, 1584)]


def test_golden_record_line() -> None:
    assert encoded()[1].decode() == (
        '{"idx":3,"offset":512,"length":1024,"data":"' + "0" * 32 + '","base":"' + "f" * 32 + '"}\n'
    )


def test_no_byte_can_change_unnoticed() -> None:
    data = b"".join(encoded())
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x01
        with pytest.raises(Damage):
            decode(bytes(broken).splitlines(keepends=True))


@pytest.mark.parametrize("count", range(4))
def test_a_manifest_that_ends_early_is_damaged(count: int) -> None:
    with pytest.raises(Damage, match="the manifest ends here; expected more lines"):
        decode(encoded()[:count])


def test_nothing_follows_the_last_line() -> None:
    with pytest.raises(Damage, match="expected the end of the manifest"):
        decode([*encoded(), b"\n"])


def test_a_line_is_whole() -> None:
    with pytest.raises(Damage, match="at offset 0: expected a whole line"):
        decode([encoded()[0][:-1]])


def test_damage_is_told_with_its_place() -> None:
    lines = encoded()

    with pytest.raises(Damage) as caught:
        decode([lines[0], b"no json\n"])

    assert caught.value.offset == len(lines[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[]\n", "expected an object of manifest, vdi"),
        (b"{}\n", "expected an object of manifest, vdi"),
        (b"\xff\n", "can't decode"),
        (b"[" * 10_000 + b"\n", "recursion"),
        (changed(manifest=2), "expected a manifest of version 1, got 2"),
        (changed(size=-1), "expected a number from 0 on, got -1"),
        (changed(copies=True), "expected a number from 0 on, got True"),
        (changed(object_size=0), "expected objects of some size, got 0 bytes"),
        (changed(vdi=5), "expected text, got 5"),
        (changed(dialect="tar"), "'tar' is not a valid Dialect"),
        (changed(snapshot=None), "expected a snapshot, got None"),
        (changed(snapshot={"id": 1}), "missing 3 required positional arguments"),
        (changed(snapshot=snapshot(id="1")), "expected a number from 0 on, got '1'"),
        (changed(snapshot=snapshot(tag=None)), "expected text, got None"),
        (changed(snapshot=snapshot(vdi_id=255)), "expected text, got 255"),
        (changed(snapshot=snapshot(created=0)), "expected text, got 0"),
        (changed(base=snapshot(tag=["a"])), r"expected text, got \['a'\]"),
        (changed(base=None), "expected no size of a base that there is none of, got 536870912"),
        (changed(base_size=None), "expected a number from 0 on, got None"),
    ],
)
def test_a_first_line_that_makes_no_sense_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(Damage, match=message):
        decode([line])


@pytest.mark.parametrize("digest", ["0" * 31, "z" * 32, 5, None])
def test_a_digest_is_32_digits(digest: object) -> None:
    fields = {"idx": 1, "offset": 0, "length": 512, "data": digest, "base": None}

    with pytest.raises(Damage, match="expected a digest of 32 hex digits"):
        decode([encoded()[0], json.dumps(fields).encode() + b"\n"])


def test_the_last_line_counts_the_records() -> None:
    encoder = ManifestEncoder()
    lines = [encoder.opening(SUBJECT)]
    encoder.records = 5

    with pytest.raises(Damage, match="expected 0 records, got 5"):
        decode([*lines, encoder.ending(8)])


def test_times_are_exact() -> None:
    assert time_text(1 << 32 | 5) == "1970-01-01T00:00:01.000000005Z"
    assert time_text(0) is None
