from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.format import Dialect, RecordHeader
from tests.property import reference

U32 = st.integers(0, 0xFFFFFFFF)


@given(st.builds(RecordHeader, st.integers(0, 0xFFFFFFFE), U32, U32))
def test_record_headers_survive_encoding(header: RecordHeader) -> None:
    assert RecordHeader.decode(header.encode()) == header


@given(
    st.sampled_from(list(Dialect)),
    st.dictionaries(st.integers(0, 0xFFFFFFFE), st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=6),
)
def test_what_is_encoded_is_what_an_obvious_reader_reads(dialect: Dialect, records: dict[int, tuple[int, int]]) -> None:
    encoded = bytearray(dialect.opening)
    expected = []
    for idx, (offset, length) in sorted(records.items()):
        data = bytes([idx % 256]) * (length * 512)
        encoded += RecordHeader(idx, offset * 512, len(data)).encode() + data
        expected.append(reference.Record(idx, offset * 512, data))
    encoded += dialect.ending
    patch = dialect.patch(len(expected))
    encoded[: len(patch)] = patch

    assert reference.parse(bytes(encoded), dialect.value, 1 << 20) == expected
