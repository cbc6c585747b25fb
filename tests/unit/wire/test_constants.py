from __future__ import annotations

from typing import Any

import pytest

from asyncbackup.wire.constants import Result


def test_a_known_result_has_its_name() -> None:
    assert Result(0x8F) is Result.AGAIN


def test_an_unknown_result_keeps_its_value() -> None:
    result = Result(0x77)

    assert result == 0x77
    assert result.name == "UNKNOWN_0x77"
    assert result.meaning == "unknown 0x77"
    assert result not in Result.__members__.values()


def test_the_largest_result_of_the_wire_is_kept() -> None:
    assert Result(0xFFFFFFFF) == 0xFFFFFFFF


@pytest.mark.parametrize("value", [-1, 1 << 32, "EIO", None])
def test_what_no_wire_can_carry_is_no_result(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid Result"):
        Result(value)


def test_a_result_is_told_in_words() -> None:
    assert Result.WAIT_FOR_FORMAT.meaning == "waiting for format"


def test_a_result_without_words_of_its_own_is_told_by_its_name() -> None:
    assert Result.BUFFER_SMALL.meaning == "buffer small"
