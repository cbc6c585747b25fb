from __future__ import annotations

import threading
from pathlib import Path

import anyio
import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbackup.errors import KeyUnusable, TargetFull
from asyncbackup.storage import FileTarget
from asyncbackup.storage.age_target import AgeTarget
from asyncbackup.storage.target import Bytes
from tests.collecting import CollectingTarget
from tests.disks import noise
from tests.folders import left_in

IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())


def encrypting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "encryption"]


async def encrypt(*parts: Bytes) -> bytes:
    inner = CollectingTarget()
    async with AgeTarget(inner, [RECIPIENT]) as target:
        for part in parts:
            await target.append([part])
        await target.complete()
    assert inner.is_complete
    assert not encrypting()
    return bytes(inner.data)


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=100_000), max_size=5))
async def test_whoever_has_the_key_gets_the_content(parts: list[bytes]) -> None:
    assert pyrage.decrypt(await encrypt(*parts), [IDENTITY]) == b"".join(parts)


async def test_large_content_goes_through() -> None:
    content = noise(7, 5 << 20)

    assert pyrage.decrypt(await encrypt(content), [IDENTITY]) == content


async def test_the_caller_can_use_its_buffers_again() -> None:
    inner, buffer = CollectingTarget(), bytearray(b"first")
    async with AgeTarget(inner, [RECIPIENT]) as target:
        await target.append([buffer])
        buffer[:] = b"other"
        await target.complete()

    assert pyrage.decrypt(bytes(inner.data), [IDENTITY]) == b"first"


async def test_a_full_disk_ends_the_thread() -> None:
    with pytest.raises(TargetFull):
        async with AgeTarget(CollectingTarget(room=0), [RECIPIENT]) as target:
            await target.append([bytes(5 << 20)])

    assert not encrypting()


async def test_a_cancellation_ends_the_thread(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with FileTarget(tmp_path / "file") as file, AgeTarget(file, [RECIPIENT]) as target:
            await target.append([bytes(100)])
            scope.cancel()
            await target.append([bytes(5 << 20)])

    assert scope.cancelled_caught
    assert not encrypting()
    assert not left_in(tmp_path)


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(KeyUnusable, match="'age1xyz' is no public key of age"):
        AgeTarget(CollectingTarget(), ["age1xyz"])


def test_more_keys_than_a_header_has_room_for_are_refused() -> None:
    with pytest.raises(KeyUnusable, match="has 41 keys: expected at most 40"):
        AgeTarget(CollectingTarget(), [RECIPIENT] * 41)
