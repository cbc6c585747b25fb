from __future__ import annotations

from asyncbackup.storage.kept import KeptTarget


async def test_what_is_appended_is_kept_although_its_buffer_is_used_again() -> None:
    buffer, steps = bytearray(b"one"), list[str]()
    async with KeptTarget("name") as target:
        await target.append([buffer, b"two"], before=lambda: steps.append("before"))
        buffer[:] = b"___"
        await target.complete()

    assert target.data == b"onetwo"
    assert steps == ["before"]
