from __future__ import annotations

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.format.age import CHUNK_SIZE, MAGIC, decode_header, significant

HEADER = (
    MAGIC
    + b"-> X25519 ubLIGn8O30a1JL9cdSHJ+bivUpFT2oddIqogh4OIY3Q\n"
    + b"SrW4eKQq7gVGl+odYuKRQNUjl4baIcgXQxquyvs5rhI\n"
    + b"-> X25519 m8a8dYGcwku28+2aYwk5bOYOMu2Cj8vcjWCCOa3VTQg\n"
    + b"SrW4eKQq7gVGl+odYuKRQNUjl4baIcgXQxquyvs5rhI\n"
    + b"-> ssh-ed25519 +MVYVA E04hMHBd9XIGx3q9XOYUx3tt/gVQRsa8Il1guiSydUA\n"
    + b"VtfimlyEbRNmNVep/vroafClGcNs049WtkLMzXGTIps\n"
    + b"-> D-grease .G<k= 48T( NGwL\n"
    + b"+N15C9hjGG1Ihkik4YhU9iBkrWq0PJvAu3Z3+g\n"
    + b"-> piv-p256 abcd\n"
    + b"+N15C9hjGG1Ihkik4YhU9iBkrWq0PJvAu3Z3+g\n"
    + b"--- KTNc1/WCdMGvadJQnBMrfUpzVGmsx675TdnBf3d7ad0\n"
)


def test_a_header_tells_who_can_read_the_file() -> None:
    header = decode_header(HEADER + b"\x00\n--- \n-> ssh-rsa 12345\n")

    assert header is not None
    assert header.size == len(HEADER)
    assert not header.has_passphrase
    assert header.recipients() == [
        "2 times an age key, which the file does not name",
        "the ssh-ed25519 key with a fingerprint like SHA256:+MVYV…",
        "a key of the kind piv-p256",
    ]


@pytest.mark.parametrize("size", [0, 10, len(MAGIC), 100, len(HEADER) - 1])
def test_a_header_that_does_not_end_is_none(size: int) -> None:
    assert decode_header(HEADER[:size]) is None


def test_a_passphrase_is_seen() -> None:
    header = decode_header(pyrage.passphrase.encrypt(b"content", "secret"))

    assert header is not None
    assert header.has_passphrase


def test_a_chunk_stands_where_the_header_says() -> None:
    encrypted = pyrage.encrypt(bytes(CHUNK_SIZE + 1), [pyrage.x25519.Identity.generate().to_public()])
    header = decode_header(encrypted)

    assert header is not None
    # The last chunk has one byte of content, and its tag.
    assert header.offset_of(CHUNK_SIZE) == len(encrypted) - 17


@given(st.binary(max_size=300))
def test_no_bytes_break_it(garbage: bytes) -> None:
    header = decode_header(MAGIC + garbage)
    if header is not None:
        header.recipients()


def test_comments_and_blank_lines_are_no_keys() -> None:
    assert significant(["# comment", "", "  ", " one ", "two"]) == [(4, "one"), (5, "two")]
