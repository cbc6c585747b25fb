from __future__ import annotations

from typing import Any

import pytest

from asyncbackup.format.bounds import check_name, check_number, check_time, check_vdi_id, shown


@pytest.mark.parametrize("value", [1, 2, 7])
def test_a_number_within_its_bounds_is_taken(value: int) -> None:
    check_number("copies", value, 7, least=1)


@pytest.mark.parametrize("value", [0, 8, -1, True, 2.0, "2", None, [2]])
def test_another_number_is_refused_with_its_bounds(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^copies: expected a number from 1 to 7, got "):
        check_number("copies", value, 7, least=1)


@pytest.mark.parametrize("value", ["", "vm", "é" * 127, "x" * 255, "\udcff", "a\nb"])
def test_a_name_that_an_inode_can_hold_is_taken(value: str) -> None:
    check_name("vdi", value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "expected text, got None"),
        (7, "expected text, got 7"),
        ("x" * 256, "expected at most 255 bytes of text, got 256"),
        ("é" * 128, "expected at most 255 bytes of text, got 256"),
        ("a\0b", "expected text without zeros"),
        ("\ud800", "expected text without lone surrogates"),
        ("\udcc3\udca9", "expected text without needless surrogates"),
    ],
)
def test_a_name_that_no_inode_holds_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^vdi: {problem}"):
        check_name("vdi", value)


@pytest.mark.parametrize("value", ["1", "f", "abcdef", "ffffff"])
def test_a_vdi_id_is_hex_of_24_bits(value: str) -> None:
    check_vdi_id("vdi_id", value)


@pytest.mark.parametrize("value", ["", "0", "01", "ABCDEF", "1000000", "g", "0x1", " 1", "1\n", 1, None])
def test_another_vdi_id_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^vdi_id: expected 1 to 6 hex digits without leading zeros, got "):
        check_vdi_id("vdi_id", value)


@pytest.mark.parametrize(
    "value", ["1970-01-01T00:00:00.000000000Z", "2026-11-22T20:00:00.000000001Z", "2106-02-07T06:28:15.999999999Z"]
)
def test_a_time_that_an_inode_can_hold_is_taken(value: str) -> None:
    check_time("created", value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2026-11-22T20:00:00Z", "expected a time such as"),
        ("2026-11-22T20:00:00.00000001Z", "expected a time such as"),
        ("2026-11-22T20:00:00.000000001", "expected a time such as"),
        ("2026-11-22T20:00:00.000000001Z\n", "expected a time such as"),
        (1795377600, "expected a time such as"),
        (None, "expected a time such as"),
        ("2026-02-30T20:00:00.000000001Z", "day is out of range"),
        ("1969-12-31T23:59:59.000000000Z", "expected a time from 1970 to 2106"),
        ("2106-02-07T06:28:16.000000000Z", "expected a time from 1970 to 2106"),
    ],
)
def test_another_time_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^created: {problem}"):
        check_time("created", value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("vm", "'vm'"),
        ("x" * 64, f"'{'x' * 64}'"),
        ("x" * 65, f"'{'x' * 64}…'"),
        (7, "7"),
        (["é"], r"['\xe9']"),
        (10**100, f"1{'0' * 63}…"),
    ],
)
def test_an_absurd_value_is_shown_short(value: Any, written: str) -> None:
    assert shown(value) == written
