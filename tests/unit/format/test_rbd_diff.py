from __future__ import annotations

from asyncbackup.format import rbd_diff


def test_a_full_image_has_no_snapshot_to_go_on() -> None:
    assert rbd_diff.opening(0x0102, "tuesday", None) == (
        b"rbd diff v1\nt\x07\x00\x00\x00tuesdays\x02\x01\x00\x00\x00\x00\x00\x00"
    )


def test_a_difference_names_both_snapshots() -> None:
    assert rbd_diff.opening(0, "b", "a") == b"rbd diff v1\nf\x01\x00\x00\x00at\x01\x00\x00\x00bs" + bytes(8)


def test_names_are_counted_in_bytes() -> None:
    assert b"t\x03\x00\x00\x00\xc3\xa9t" in rbd_diff.opening(0, "ét", None)


def test_a_tag_that_is_no_text_keeps_its_bytes() -> None:
    assert b"t\x02\x00\x00\x00\xffa" in rbd_diff.opening(0, b"\xffa".decode(errors="surrogateescape"), None)


def test_an_image_without_snapshots_has_its_size_alone() -> None:
    assert rbd_diff.opening(1, None, None) == b"rbd diff v1\ns\x01" + bytes(7)


def test_data_follows_its_place() -> None:
    assert rbd_diff.data(1 << 40, 512) == b"w" + (1 << 40).to_bytes(8, "little") + (512).to_bytes(8, "little")


def test_zeros_have_a_place_alone() -> None:
    assert rbd_diff.zeros(4096, 1 << 33) == b"z" + (4096).to_bytes(8, "little") + (1 << 33).to_bytes(8, "little")
