from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from asyncbackup.engine.compact import trim
from tests.property import reference

SECTOR = 512
SIZES = st.sampled_from([1, 2, 3, 7, 64, 127, 129, 300, 1000, 2047, 2049, 5000])
"""Sectors; around the steps in which contents are compared."""


@st.composite
def contents(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> tuple[bytes, bytes]:
    """Two contents that differ in a few bytes, or not at all."""
    sectors = draw(sizes)
    base = random.Random(draw(st.integers(0, 3))).randbytes(sectors * SECTOR)
    to = bytearray(base)
    for at in draw(st.lists(st.integers(0, len(base) - 1), max_size=4)):
        to[at] ^= draw(st.integers(0, 255))
    return bytes(to), base


@given(contents())
def test_trimming_agrees_with_the_obvious_way(pair: tuple[bytes, bytes]) -> None:
    to, base = pair

    assert trim(memoryview(to), memoryview(base)) == reference.trim(to, base)
