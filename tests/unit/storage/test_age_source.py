from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncbackup.errors import BackupDamaged, KeyUnusable, NotDecrypted, SourceUnreadable
from asyncbackup.format.age import CHUNK_SIZE, MAGIC
from asyncbackup.storage import FileSource, Layers, PipeSource
from asyncbackup.storage.age_source import open_age
from tests.disks import noise
from tests.keys import Key, make_key
from tests.layered import read_all, write_layered

CONTENT = noise(6, 3 * CHUNK_SIZE + 1000)


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path)


@pytest.fixture
async def file(tmp_path: Path, key: Key) -> Path:
    await write_layered(tmp_path / "file", CONTENT, Layers(recipients=(key.recipient,)))
    return tmp_path / "file"


def decrypting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decryption"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.integers(1, len(CONTENT) + 9))
async def test_the_content_is_read_in_pieces_of_any_size(file: Path, key: Key, size: int) -> None:
    async with FileSource(file) as inner, await open_age(inner, [str(key.identity)]) as source:
        assert source.size is None
        assert await source.peek(5) == CONTENT[:5]
        assert await read_all(source, max(size, 1000)) == CONTENT
    assert not decrypting()


async def test_a_pipe_is_read_as_well(file: Path, key: Key) -> None:
    reader, writer = os.pipe()
    content = file.read_bytes()  # noqa: ASYNC240 - a test waits for nobody

    def write_now() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(content)

    async def write() -> None:
        await anyio.to_thread.run_sync(write_now)

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        async with PipeSource(reader) as pipe, await open_age(pipe, [str(key.identity)]) as source:
            assert await read_all(source) == CONTENT
            with pytest.raises(SourceUnreadable, match="is a pipe"):
                source.read_now(0, memoryview(bytearray(4)))
    os.close(reader)


async def test_threads_read_it_from_the_beginning_again(file: Path, key: Key) -> None:
    async with FileSource(file) as inner, await open_age(inner, [str(key.identity)]) as source:
        for start in (0, 1000, CHUNK_SIZE + 5, 0, len(CONTENT) - 5, 10):
            buffer = memoryview(bytearray(2000))
            count = source.read_now(start, buffer)
            assert bytes(buffer[:count]) == CONTENT[start : start + 2000]
    assert not decrypting()


async def test_a_file_that_is_cut_off_anywhere_is_damaged(tmp_path: Path, file: Path, key: Key) -> None:
    content = file.read_bytes()  # noqa: ASYNC240 - a test waits for nobody
    header = len(content) - len(CONTENT) - 16 - 4 * 16
    ends = [30, header - 1, header, header + 10, header + 16]
    ends += [header + 16 + chunk * (CHUNK_SIZE + 16) + more for chunk in (1, 2, 3) for more in (-1, 0, 1)]
    for end in [*ends, len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:end])
        async with FileSource(tmp_path / "cut") as inner, await open_age(inner, [str(key.identity)]) as source:
            with pytest.raises(BackupDamaged):
                await read_all(source)
    assert not decrypting()


@pytest.mark.parametrize("chunk", [0, 1, 3])
async def test_a_changed_byte_is_damage_where_its_chunk_begins(
    tmp_path: Path, file: Path, key: Key, chunk: int
) -> None:
    content = bytearray(file.read_bytes())  # noqa: ASYNC240 - a test waits for nobody
    place = len(content) - len(CONTENT) - 4 * 16 + chunk * (CHUNK_SIZE + 16)
    content[place + 500] ^= 1
    (tmp_path / "changed").write_bytes(content)

    async with FileSource(tmp_path / "changed") as inner, await open_age(inner, [str(key.identity)]) as source:
        with pytest.raises(BackupDamaged, match=f"at offset {place}: this is not what age wrote, or not all of it"):
            await read_all(source)


async def test_the_last_bytes_wait_for_the_end(tmp_path: Path, file: Path, key: Key) -> None:
    (tmp_path / "longer").write_bytes(file.read_bytes() + b"more")  # noqa: ASYNC240 - a test waits for nobody

    async with FileSource(tmp_path / "longer") as inner, await open_age(inner, [str(key.identity)]) as source:
        buffer = memoryview(bytearray(len(CONTENT)))
        with pytest.raises(BackupDamaged):
            await source.read_into(0, buffer)


async def test_an_armored_file_is_refused(tmp_path: Path, key: Key) -> None:
    recipient = pyrage.x25519.Recipient.from_str(key.recipient)
    (tmp_path / "file").write_bytes(pyrage.encrypt(CONTENT, [recipient], armored=True))

    async with FileSource(tmp_path / "file") as inner, await open_age(inner, [str(key.identity)]) as source:
        with pytest.raises(NotDecrypted, match="this is armored"):
            await source.peek(4)


async def test_without_identities_nothing_is_read(file: Path) -> None:
    async with FileSource(file) as inner:
        with pytest.raises(NotDecrypted, match="this is encrypted with age"):
            await open_age(inner, [])


async def test_another_key_does_not_open_it(tmp_path: Path, file: Path) -> None:
    other = make_key(tmp_path, "other")

    async with FileSource(file) as inner, await open_age(inner, [str(other.identity)]) as source:
        with pytest.raises(NotDecrypted, match="none of the identities opens this; it is for an age key"):
            await source.peek(4)


async def test_one_of_several_keys_is_enough(tmp_path: Path, file: Path, key: Key) -> None:
    other = make_key(tmp_path, "other")

    async with FileSource(file) as inner, await open_age(inner, [str(other.identity), str(key.identity)]) as source:
        assert await read_all(source) == CONTENT


async def test_a_passphrase_is_not_asked_for(tmp_path: Path, key: Key) -> None:
    (tmp_path / "file").write_bytes(pyrage.passphrase.encrypt(CONTENT, "secret"))

    async with FileSource(tmp_path / "file") as inner, await open_age(inner, [str(key.identity)]) as source:
        with pytest.raises(NotDecrypted, match="encrypted with a passphrase"):
            await source.peek(4)
    assert not decrypting()


@pytest.mark.parametrize("stanzas", [1000, 100_000])
async def test_a_header_that_is_too_long_is_damage(tmp_path: Path, key: Key, stanzas: int) -> None:
    (tmp_path / "file").write_bytes(MAGIC + b"-> x-grease abc\nYWJj\n" * stanzas + b"--- YWJj\n")

    async with FileSource(tmp_path / "file") as inner, await open_age(inner, [str(key.identity)]) as source:
        with pytest.raises(BackupDamaged, match="expected a header of age of at most 65536 bytes"):
            await source.peek(4)
    assert not decrypting()


async def test_no_thread_stays_of_what_is_left_in_the_middle(tmp_path: Path, key: Key) -> None:
    file = tmp_path / "large"
    await write_layered(file, bytes(8 << 20), Layers(recipients=(key.recipient,)))
    async with FileSource(file) as inner, await open_age(inner, [str(key.identity)]) as source:
        await source.peek(4)
        assert decrypting()

    assert not decrypting()


async def test_an_identity_file_that_holds_none_is_told(tmp_path: Path, file: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")

    async with FileSource(file) as inner:
        with pytest.raises(KeyUnusable, match="empty holds no key"):
            await open_age(inner, [str(tmp_path / "empty")])
