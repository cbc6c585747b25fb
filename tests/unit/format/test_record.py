from __future__ import annotations

import pytest

from asyncbackup.format import RecordHeader


def test_golden_record_header() -> None:
    assert RecordHeader(7, 512, 1024).encode().hex(" ", 4) == "07000000 00020000 00040000 00000000"


def test_a_header_survives_encoding() -> None:
    header = RecordHeader(0xFFFFFFFE, 1 << 31, 512)

    assert RecordHeader.decode(header.encode()) == header


def test_the_index_that_means_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="would look like the end"):
        RecordHeader(0xFFFFFFFF, 0, 512).encode()
