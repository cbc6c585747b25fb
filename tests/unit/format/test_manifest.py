from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import xxhash

from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.decoder import Damage
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import (
    MAX_LINE,
    Line,
    ManifestDecoder,
    ManifestEncoder,
    Missing,
    RecordDigests,
    Subject,
    Trailer,
    decode_data_length,
)
from asyncbackup.format.piece import PieceRange

FORMATTED = "2026-01-01T00:00:00.123456789Z"
SUBJECT = Subject(
    size=1 << 30,
    object_size=1 << 22,
    copies=3,
    copy_policy=0,
    dialect=Dialect.DOG,
    identity=Identity("vm", "abcdef", "2026-11-22T20:00:00.000000001Z", FORMATTED, 2, "b"),
    base_identity=Identity("vm", "abcdee", "2026-11-21T20:00:00.000000000Z", FORMATTED, 1, "a"),
    base_size=1 << 29,
)
RECORD = RecordDigests(RecordHeader(3, 512, 1024), "0" * 32, "f" * 32)
UNKNOWN_BASE = RecordDigests(RecordHeader(4, 0, 512), "1" * 32, None)
ASSUMED_BASE = RecordDigests(RecordHeader(5, 0, 512), "2" * 32, None, assumed=True)
RECORDS = [RECORD, UNKNOWN_BASE, ASSUMED_BASE]
LENGTH = 8 + 16 + 1024 + 16 + 512 + 16 + 512 + 16


def encoded() -> list[bytes]:
    encoder = ManifestEncoder()
    return [encoder.opening(SUBJECT), *map(encoder.record, RECORDS), encoder.ending(LENGTH)]


def decode(lines: list[bytes]) -> list[Line]:
    decoder = ManifestDecoder()
    decoded = [decoder.feed(line) for line in lines]
    decoder.finish()
    return decoded


def digested(lines: list[bytes]) -> list[bytes]:
    """Give the last line the digest that is right for ``lines``."""
    covered, _, _ = lines[-1].partition(b'"digest":"')
    digest = xxhash.xxh3_128(b"".join([*lines[:-1], covered, b'"digest":"'])).hexdigest()
    return [*lines[:-1], covered + b'"digest":"' + digest.encode() + b'"}\n']


def edited(line: int, before: str, after: str) -> list[bytes]:
    """Make a manifest in which ``line``, from 1 on, says something else, with the digest that is right for it."""
    lines = encoded()
    assert lines[line - 1].count(before.encode()) == 1
    lines[line - 1] = lines[line - 1].replace(before.encode(), after.encode())
    return digested(lines)


def test_a_manifest_says_what_was_put_in() -> None:
    assert decode(encoded()) == [SUBJECT, *RECORDS, Trailer(3, LENGTH)]


def test_golden_lines() -> None:
    lines = [line.decode() for line in encoded()]

    assert lines[0] == (
        '{"manifest":2,"vdi":"vm","cluster":"2026-01-01T00:00:00.123456789Z","size":1073741824,"object_size":4194304,'
        '"copies":3,"copy_policy":0,"dialect":"dog",'
        '"snapshot":{"id":2,"tag":"b","vdi_id":"abcdef","created":"2026-11-22T20:00:00.000000001Z"},'
        '"base":{"id":1,"tag":"a","vdi_id":"abcdee","created":"2026-11-21T20:00:00.000000000Z"},'
        '"base_size":536870912}\n'
    )
    assert lines[1:-1] == [
        '{"idx":3,"offset":512,"length":1024,"data":"' + "0" * 32 + '","base":"' + "f" * 32 + '"}\n',
        '{"idx":4,"offset":0,"length":512,"data":"' + "1" * 32 + '","base":null}\n',
        '{"idx":5,"offset":0,"length":512,"data":"' + "2" * 32 + '","base":null,"assumed":true}\n',
    ]


def of_version_1() -> list[bytes]:
    """Make the lines of a manifest of version 1, which would not say that a base was assumed."""
    lines = encoded()
    lines[0] = (
        lines[0].replace(b'"manifest":2', b'"manifest":1').replace(b'"cluster":"' + FORMATTED.encode() + b'",', b"")
    )
    return lines


def test_version_1_does_not_say_that_a_base_was_assumed() -> None:
    with pytest.raises(Damage, match="line 4: 'assumed': expected no such field"):
        decode(digested(of_version_1()))


def test_version_1_does_not_say_the_cluster() -> None:
    lines = of_version_1()
    lines[3] = lines[3].replace(b',"assumed":true', b"")

    subject, *_ = decode(digested(lines))

    assert isinstance(subject, Subject)
    assert subject.base_identity is not None
    assert (subject.cluster, subject.base_identity.cluster) == (None, None)
    assert subject.identity == replace(SUBJECT.identity, cluster=None)


def test_no_byte_can_change_unnoticed() -> None:
    data = b"".join(encoded())
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x01
        with pytest.raises(Damage):
            decode(bytes(broken).splitlines(keepends=True))


@pytest.mark.parametrize("count", range(5))
def test_a_manifest_that_ends_early_is_damaged(count: int) -> None:
    with pytest.raises(Damage, match="the manifest ends here; expected more lines"):
        decode(encoded()[:count])


def test_nothing_follows_the_last_line() -> None:
    with pytest.raises(Damage, match="line 6: expected the end of the manifest"):
        decode([*encoded(), b"\n"])


def test_a_line_is_whole() -> None:
    with pytest.raises(Damage, match="at offset 0: line 1: expected a whole line"):
        decode([encoded()[0][:-1]])


def test_a_line_is_of_bounded_length() -> None:
    with pytest.raises(Damage, match="line 1: expected at most 16384 bytes"):
        decode([b"x" * MAX_LINE])


def test_damage_is_told_with_its_place() -> None:
    lines = encoded()

    with pytest.raises(Damage, match="line 2: expected JSON: Expecting value at column 1") as caught:
        decode([lines[0], b"no json\n"])

    assert caught.value.offset == len(lines[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": "\n"}\n', r"expected JSON: Invalid control character at column 8"),
        (b"[]\n", "expected an object, got \\[\\]"),
        (b"{}\n", "manifest: expected a number from 1 to 5, got None"),
        (b"\xff\n", "expected ASCII, got byte 0xff at column 1"),
        ('{"ü":1}\n'.encode(), "expected ASCII, got byte 0xc3 at column 3"),
        (b"[" * 10_000 + b"\n", "expected no arrays or objects in one another"),
        (b'{"a":' * 3000 + b"\n", "expected no arrays or objects in one another"),
    ],
)
def test_a_line_that_is_no_object_of_json_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(Damage, match=f"line 1: .*{message}"):
        decode([line])


HUGE = "1" + "0" * 400
SNAPSHOT = '"snapshot":{"id":2,"tag":"b","vdi_id":"abcdef","created":"2026-11-22T20:00:00.000000001Z"}'


@pytest.mark.parametrize(
    ("line", "before", "after", "message"),
    [
        (1, '"manifest":2', '"manifest":6', "manifest: expected version 1 to 5, got 6: a newer asyncbackup reads it"),
        (1, '"manifest":2', '"manifest":true', "manifest: expected a number from 1 to 5, got True"),
        (1, '"manifest":2', '"manifest":1', "'cluster': expected no such field"),
        (1, '"copies":3,', "", "copies: expected this field, got none"),
        (1, '"copies":3,', '"copies":3,"copies":3,', "'copies': expected once, got twice"),
        (1, '"copies":3,"copy_policy":0', '"copy_policy":0,"copies":3', "expected the fields .* in this order"),
        (1, '"size":1073741824', '"size":-1', "size: expected a number from 0 to 18014398505287680, got -1"),
        (1, '"size":1073741824', f'"size":{HUGE}', "size: expected a number from 0 to .*, got 10{63}…"),
        (1, '"size":1073741824', f'"size":{"9" * 5000}', "size: expected a number from 0 to .*, got 9{64}…"),
        (1, '"size":1073741824', '"size":18014398505287681', "size: expected a number .*, got 18014398505287681"),
        (1, '"size":1073741824', '"size":1e9', "size: expected a number from 0 to .*, got 1e9"),
        (1, '"size":1073741824', '"size":1.0', "size: expected a number from 0 to .*, got 1.0"),
        (1, '"size":1073741824', '"size":NaN', "size: expected a number from 0 to .*, got NaN"),
        (1, '"size":1073741824', '"size":-Infinity', "size: expected a number from 0 to .*, got -Infinity"),
        (1, '"size":1073741824', '"size":null', "size: expected a number from 0 to .*, got None"),
        (1, '"size":1073741824', '"size":"8"', "size: expected a number from 0 to .*, got '8'"),
        (1, '"object_size":4194304', '"object_size":0', "object_size: expected a number from 1048576 to 2147483648"),
        (1, '"object_size":4194304', '"object_size":524288', "object_size: expected a number from 1048576"),
        (1, '"object_size":4194304', '"object_size":4294967296', "object_size: expected a number from 1048576"),
        (1, '"object_size":4194304', '"object_size":4194305', "object_size: expected a power of two, got 4194305"),
        (1, '"copies":3', '"copies":256', "copies: expected a number from 0 to 255, got 256"),
        (1, '"copies":3', '"copies":true', "copies: expected a number from 0 to 255, got True"),
        (1, '"copy_policy":0', '"copy_policy":256', "copy_policy: expected a number from 0 to 255, got 256"),
        (1, '"dialect":"dog"', '"dialect":"tar"', "dialect: expected collie or dog, got 'tar'"),
        (1, '"dialect":"dog"', '"dialect":[]', r"dialect: expected collie or dog, got \[\]"),
        (1, '"dialect":"dog"', '"dialect":null', "dialect: expected collie or dog, got None"),
        (1, '"vdi":"vm"', '"vdi":5', "line 1: vdi: expected text, got 5"),
        (1, '"vdi":"vm"', '"vdi":null', "line 1: vdi: expected text, got None"),
        (1, '"vdi":"vm"', '"vdi":""', "line 1: vdi: expected a name, got an empty one"),
        (1, '"vdi":"vm"', '"vdi":"' + "v" * 256 + '"', "line 1: vdi: expected at most 255 bytes of text, got 256"),
        (1, '"vdi":"vm"', '"vdi":"v\\u0000"', "line 1: vdi: expected text without zeros, got 'v\\0'"),
        (1, '"vdi":"vm"', '"vdi":"\\ud800"', "line 1: vdi: expected text without lone surrogates, got '\\ud800'"),
        (1, '"vdi":"vm"', '"vdi":"\\udc41"', "line 1: vdi: expected text without lone surrogates, got '\\udc41'"),
        (1, '"vdi":"vm"', '"vdi":"\\udcc3\\udca9"', "line 1: vdi: expected text without needless surrogates"),
        (1, f'"cluster":"{FORMATTED}"', '"cluster":0', "line 1: cluster: expected a time such as .*, got 0"),
        (1, f'"cluster":"{FORMATTED}"', '"cluster":"now"', "line 1: cluster: expected a time such as .*, got 'now'"),
        (1, SNAPSHOT, '"snapshot":null', "snapshot: expected an object, got None"),
        (1, SNAPSHOT, '"snapshot":{"id":1}', "snapshot.tag: expected this field, got none"),
        (1, '"id":2', '"id":"2"', "snapshot.id: expected a number from 0 to 4294967295, got '2'"),
        (1, '"id":2', '"id":4294967296', "snapshot.id: expected a number from 0 to 4294967295, got 4294967296"),
        (1, '"id":2', '"id":2,"id":2', "'id': expected once, got twice"),
        (1, '"tag":"b"', '"tag":null', "snapshot.tag: expected text, got None"),
        (1, '"tag":"a"', '"tag":["a"]', r"base.tag: expected text, got \['a'\]"),
        (1, '"vdi_id":"abcdef"', '"vdi_id":255', "snapshot.vdi_id: expected 1 to 6 hex digits .*, got 255"),
        (1, '"vdi_id":"abcdef"', '"vdi_id":"1abcdef"', "snapshot.vdi_id: expected 1 to 6 hex digits"),
        (1, '"vdi_id":"abcdef"', '"vdi_id":"0"', "snapshot.vdi_id: expected 1 to 6 hex digits"),
        (1, '"vdi_id":"abcdee"', '"vdi_id":"ABCDEE"', "base.vdi_id: expected 1 to 6 hex digits"),
        (1, "2026-11-22T20:00:00.000000001Z", "2026-11-31T20:00:00.000000001Z", "snapshot.created: day "),
        (1, "2026-11-22T20:00:00.000000001Z", "2026-11-22T24:00:00.000000001Z", "snapshot.created: "),
        (1, "2026-11-22T20:00:00.000000001Z", "2026-11-22T20:00:00.00000001Z", "snapshot.created: expected a time"),
        (1, "2026-11-22T20:00:00.000000001Z", "2126-11-22T20:00:00.000000001Z", "snapshot.created: .* 1970 to 2106"),
        (1, "2026-11-22T20:00:00.000000001Z", "1926-11-22T20:00:00.000000001Z", "snapshot.created: .* 1970 to 2106"),
        (1, '"created":"2026-11-22T20:00:00.000000001Z"', '"created":0', "snapshot.created: expected a time .*got 0"),
        (1, '"created":"2026-11-21T20:00:00.000000000Z"', '"created":null', "base.created: expected a time, got null"),
        (1, '"base_size":536870912', '"base_size":null', "base_size: expected a number from 0 to .*, got None"),
        (1, '"base_size":536870912', f'"base_size":{HUGE}', "base_size: expected a number from 0 to"),
        (2, '"idx":3', '"idx":-1', "idx: expected a number from 0 to 4294967294, got -1"),
        (2, '"idx":3', '"idx":4294967295', "idx: expected a number from 0 to 4294967294, got 4294967295"),
        (2, '"idx":3', '"idx":256', "idx: expected one of the 256 objects of the VDI, got 256"),
        (2, '"idx":3', '"idx":"3"', "idx: expected a number from 0 to 4294967294, got '3'"),
        (3, '"idx":4', '"idx":3', "idx: expected a number above 3, got 3"),
        (2, '"offset":512', '"offset":511', "offset: expected a multiple of 512, got 511"),
        (
            2,
            '"offset":512',
            '"offset":4194304',
            "length: expected an end within 4194304 bytes of an object, got 4195328",
        ),
        (2, '"offset":512', '"offset":null', "offset: expected a number from 0 to 2147483136, got None"),
        (2, '"length":1024', '"length":0', "length: expected a number from 512 to 2147483648, got 0"),
        (2, '"length":1024', '"length":513', "length: expected a multiple of 512, got 513"),
        (
            2,
            '"length":1024',
            '"length":4194304',
            "length: expected an end within 4194304 bytes of an object, got 4194816",
        ),
        (2, '"data":"' + "0" * 32, '"data":"' + "0" * 31, "data: expected a digest of 32 hex digits, got '0+'"),
        (2, '"base":"' + "f" * 32, '"base":"' + "F" * 32, "base: expected a digest of 32 hex digits, got 'F+'"),
        (3, '"data":"' + "1" * 32 + '"', '"data":null', "data: expected a digest of 32 hex digits, got None"),
        (3, '"base":null', '"base":5', "base: expected a digest of 32 hex digits, got 5"),
        (3, '"base":null', '"base":null,"assumed":false', "assumed: expected true or nothing, got False"),
        (4, '"assumed":true', '"assumed":1', "assumed: expected true or nothing, got 1"),
        (4, '"base":null,"assumed":true', '"assumed":true,"base":null', "expected the fields .* in this order"),
        (4, '"assumed":true', '"guessed":true', "'guessed': expected no such field"),
        (5, '"records":3', '"records":2', "records: expected 3, by the lines before, got 2"),
        (5, '"records":3', '"records":3.0', "records: expected 3, by the lines before, got 3.0"),
        (5, f'"data_length":{LENGTH}', '"data_length":8', f"data_length: expected {LENGTH}, .*, got 8"),
        (5, f'"data_length":{LENGTH}', '"data_length":null', f"data_length: expected {LENGTH}, .*, got None"),
    ],
)
def test_what_makes_no_sense_is_refused_by_line_and_field_whatever_the_digest(
    line: int, before: str, after: str, message: str
) -> None:
    with pytest.raises(Damage, match=f"line {line}: .*{message}" if "line" not in message else message):
        decode(edited(line, before, after))


def test_a_full_backup_has_no_size_of_a_base() -> None:
    lines = encoded()
    base, _, _ = lines[0].partition(b'"base":')[2].partition(b',"base_size"')
    lines[0] = lines[0].replace(base, b"null")

    with pytest.raises(Damage, match="line 1: base_size: expected null without a base, got 536870912"):
        decode(digested(lines))


@pytest.mark.parametrize(
    "before",
    [
        '"size":1073741824',
        '"copies":3',
        '"dialect":"dog"',
        '"vdi":"vm"',
        '"tag":"b"',
        '"created":"2026-11-22T20:00:00.000000001Z"',
        '"idx":3',
        '"length":1024',
        '"records":3',
    ],
)
@pytest.mark.parametrize(
    "value", ["[]", "{}", "-0.0", "1e400", "[[[[1]]]]", '{"a":{"a":1}}', HUGE, '"\\udfff"', "false"]
)
def test_no_value_in_a_wrong_place_is_anything_but_damage(before: str, value: str) -> None:
    line = next(number for number, line in enumerate(encoded(), 1) if before.encode() in line)

    with pytest.raises(Damage, match=f"line {line}: "):
        decode(edited(line, before, before.partition(":")[0] + ":" + value))


@pytest.mark.parametrize(
    "name", ["v" * 255, "ü" * 127, "\U0001f4be" * 63, "\x01\x7f\x80\u202e\ufeff", 'a"\\b', "\udcff\udc80x"]
)
def test_any_name_that_an_inode_can_hold_survives(name: str) -> None:
    subject = replace(
        SUBJECT,
        identity=replace(SUBJECT.identity, vdi=name, tag=name),
        base_identity=replace(SUBJECT.identity, vdi=name, tag=name, id=1),
    )
    line = ManifestEncoder().opening(subject)

    assert ManifestDecoder().feed(line) == subject
    assert len(line) < MAX_LINE
    assert line.isascii()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_identity": replace(SUBJECT.identity, vdi="other")}, "base: expected a snapshot of the same VDI"),
        ({"base_identity": replace(SUBJECT.identity, cluster=None)}, "base: expected a snapshot of the same VDI"),
        ({"size": 1 << 60}, "size: expected a number"),
    ],
)
def test_what_would_not_be_read_is_not_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SUBJECT, **changes)


def test_what_a_backup_is_of_is_told_in_plain_values() -> None:
    fields = SUBJECT.as_dict()

    assert json.loads(encoded()[0]) == {"manifest": 2} | fields


LACKING = replace(SUBJECT, may_lack=True)


@pytest.mark.parametrize("size", [192, 1 << 20])
def test_the_end_alone_says_how_many_bytes_the_backup_has(size: int) -> None:
    assert decode_data_length(b"".join(encoded())[-size:]) == LENGTH


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (encoded()[1], "data_length: expected a number from 0 to 9223372036854775807, got None"),
        (b'{"data_length":-1}\n', "data_length: expected a number from 0 to 9223372036854775807, got -1"),
        (encoded()[-1][:-20], "expected JSON: Unterminated string"),
        (b"", "expected JSON"),
    ],
)
def test_an_end_that_does_not_say_it_is_refused(end: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decode_data_length(end)


def lacking() -> list[bytes]:
    encoder = ManifestEncoder()
    lines = [encoder.opening(LACKING), encoder.record(RECORD), encoder.leave_out(Missing(4))]
    return [*lines, encoder.leave_out(Missing(9)), encoder.ending(8 + 16 + 1024 + 16)]


def test_a_manifest_that_may_lack_objects_names_them_and_is_of_another_version() -> None:
    lines = lacking()

    assert lines[0].startswith(b'{"manifest":3,')
    assert lines[2:4] == [b'{"missing":4}\n', b'{"missing":9}\n']
    assert lines[4].startswith(b'{"records":1,"missing":2,"data_length":1064,"digest":"')
    assert decode(lines) == [LACKING, RECORD, Missing(4), Missing(9), Trailer(1, 1064, 2)]


def test_a_manifest_that_may_lack_objects_need_not_lack_any() -> None:
    encoder = ManifestEncoder()
    lines = [encoder.opening(LACKING), encoder.record(RECORD), encoder.ending(1064)]

    assert decode(lines) == [LACKING, RECORD, Trailer(1, 1064, 0)]


@pytest.mark.parametrize(
    ("line", "before", "after", "problem"),
    [
        (3, "4", "3", "line 3: missing: expected a number above 3, got 3"),
        (4, "9", "4", "line 4: missing: expected a number above 4, got 4"),
        (3, "4", "256", "line 3: missing: expected one of the 256 objects of the VDI, got 256"),
        (3, "4", "-1", "line 3: missing: expected"),
        (3, "4", '"4"', "line 3: missing: expected"),
        (3, "4}", '4,"why":1}', "line 3: 'why': expected no such field"),
        (5, '"missing":2', '"missing":1', "line 5: missing: expected 2, by the lines before, got 1"),
        (5, '"missing":2,', "", "line 5: missing: expected this field, got none"),
        (1, '"manifest":3', '"manifest":2', "line 3: idx: expected this field, got none"),
    ],
)
def test_a_missing_object_that_cannot_be_is_damage(line: int, before: str, after: str, problem: str) -> None:
    lines = lacking()
    assert before in lines[line - 1].decode()
    lines[line - 1] = lines[line - 1].decode().replace(before, after).encode()

    with pytest.raises(Damage) as damage:
        decode(digested(lines))
    assert problem in damage.value.problem


def test_a_manifest_of_version_2_has_no_count_of_missing_objects() -> None:
    lines = encoded()
    lines[-1] = lines[-1].replace(b'"data_length"', b'"missing":0,"data_length"')

    with pytest.raises(Damage, match="expected no such field"):
        decode(digested(lines))


PIECE = replace(SUBJECT, piece=PieceRange(2, 3, first=3, end=6, planned=9, plan="ab" * 16))


def piece_lines(subject: Subject = PIECE) -> list[bytes]:
    encoder = ManifestEncoder()
    lines = [encoder.opening(subject), *map(encoder.record, RECORDS)]
    return [*lines, encoder.ending(LENGTH - 8 - 16)]


def test_a_piece_says_its_range_behind_all_else_and_counts_its_records_alone() -> None:
    first, *_ = lines = piece_lines()

    assert first == encoded()[0].replace(b'"manifest":2', b'"manifest":4')[:-2] + (
        b',"piece":{"number":2,"count":3,"first":3,"end":6,"planned":9,"plan":"' + b"ab" * 16 + b'"}}\n'
    )
    assert decode(lines) == [PIECE, *RECORDS, Trailer(3, LENGTH - 8 - 16)]


def test_a_piece_that_may_lack_objects_has_a_first_line_as_long() -> None:
    lacking = replace(PIECE, may_lack=True)

    assert lacking.encode() == PIECE.encode().replace(b'"manifest":4', b'"manifest":5')
    assert decode(piece_lines(lacking))[0] == lacking


def test_a_record_outside_of_the_range_of_its_piece_is_damage() -> None:
    lines = piece_lines()
    lines[0] = lines[0].replace(b'"end":6', b'"end":5')

    with pytest.raises(Damage, match="line 4: idx: expected one of objects 3 to 4, as piece 2 of 3 has them, got 5"):
        decode(digested(lines))


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (b'"manifest":4', b'"manifest":2', "'piece': expected no such field"),
        (b'"manifest":4', b'"manifest":6', "manifest: expected version 1 to 5, got 6: a newer asyncbackup reads it"),
        (b'"number":2', b'"number":9', "piece.number: expected a number from 1 to 3, got 9"),
        (b'"end":6', b'"end":257', "piece.end: expected a number from 0 to 256, got 257"),
        (b'"piece":{', b'"piec":{', "piece: expected this field, got none"),
    ],
)
def test_a_first_line_that_no_piece_has_is_damage(before: bytes, after: bytes, problem: str) -> None:
    lines = piece_lines()
    assert before in lines[0]
    lines[0] = lines[0].replace(before, after)

    with pytest.raises(Damage, match=problem):
        decode(digested(lines))


def test_no_byte_of_a_piece_can_change_unnoticed() -> None:
    data = b"".join(piece_lines())
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x01

        with pytest.raises(Damage):
            decode(bytes(broken).splitlines(keepends=True))
