"""What a VDI that is restored in shards says in its attributes: every byte counts, and nothing else is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from asyncbackup.format.sealed import seal
from asyncbackup.format.shards import Beat, Receipt, Shards, beat_key, receipt_key, shards_key

CREATED = "2026-11-25T03:00:00.000000001Z"
DIGEST = "0123456789abcdef" * 2
SHARDS = Shards((DIGEST, DIGEST[::-1]), CREATED, 0xA6C1F0, 8 << 20, 1 << 20, 3, 0, 5)
RECEIPT = Receipt(CREATED, 2, 5, 3, 3 << 20)
BEAT = Beat(CREATED, DIGEST, 7)
LINES = [SHARDS, replace(SHARDS, backups=(DIGEST,), parent=0, copies=0, is_named=True, is_written=True), RECEIPT, BEAT]


def test_the_keys_name_the_vdi_in_hex_and_the_shard() -> None:
    assert shards_key(0xA6C1F0) == "asyncbackup.shards.a6c1f0"
    assert receipt_key(0xF, 12) == "asyncbackup.shard.f.12"
    assert beat_key(0xF, 12) == "asyncbackup.beat.f.12"


def test_all_are_lines_of_json() -> None:
    assert list(json.loads(SHARDS.encode())) == [
        *("shards", "backups", "created", "parent", "size", "object_size", "copies", "copy_policy", "count"),
        *("is_named", "is_written", "digest"),
    ]
    assert list(json.loads(RECEIPT.encode())) == [
        *("shard", "created", "first", "end", "objects", "bytes_written", "digest")
    ]
    assert list(json.loads(BEAT.encode())) == ["beat", "created", "run", "count", "digest"]


@pytest.mark.parametrize("said", LINES)
def test_each_says_what_it_was_made_of(said: Shards | Receipt | Beat) -> None:
    assert type(said).decode(said.encode()) == said


@pytest.mark.parametrize("said", [SHARDS, RECEIPT, BEAT], ids=["shards", "receipt", "beat"])
def test_every_change_of_a_byte_is_noticed(said: Shards | Receipt | Beat) -> None:
    line = said.encode()

    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1
        with pytest.raises(ValueError):  # noqa: PT011 - which field it hits differs
            type(said).decode(bytes(changed))


@pytest.mark.parametrize(
    "fields",
    [
        {"shards": 2},
        {"count": 0},
        {"count": 1 << 20},
        {"size": -1},
        {"created": "yesterday"},
        {"backups": ["0"]},
        {"is_named": 1},
    ],
    ids=repr,
)
def test_other_values_are_refused(fields: dict[str, object]) -> None:
    given = json.loads(SHARDS.encode()) | fields
    del given["digest"]

    with pytest.raises(ValueError):  # noqa: PT011 - as above
        Shards.decode(seal(given))
