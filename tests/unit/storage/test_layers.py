from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncbackup.errors import SourceUnreadable
from asyncbackup.storage import Access, FileSource, Layers
from asyncbackup.storage.layers import find_onward, layers_of, unwrap_source, usual_threads
from asyncbackup.storage.zstd import load_zstd
from tests.keys import Key, make_key
from tests.layered import read_layered, write_layered


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    # As a backup does, it begins with something that begins no layer.
    content=st.binary(max_size=200_000).map(lambda rest: b"\1\0\0\0" + rest),
    cut=st.integers(1000, 200_000),
    is_encrypted=st.booleans(),
    level=st.sampled_from([None, 1, 3]),
)
async def test_any_content_comes_back_through_any_layers(
    tmp_path: Path, key: Key, *, content: bytes, cut: int, is_encrypted: bool, level: int | None
) -> None:
    layers = Layers(level, (key.recipient,) if is_encrypted else (), threads=2)
    (tmp_path / "file").unlink(missing_ok=True)
    await write_layered(tmp_path / "file", content, layers, cut=cut)

    assert bool(layers) == (is_encrypted or level is not None)
    assert await read_layered(tmp_path / "file", key.identity) == content


async def test_the_order_of_layers_does_not_matter_to_who_reads(tmp_path: Path, key: Key) -> None:
    await write_layered(tmp_path / "inside", b"content", Layers(recipients=(key.recipient,)))
    await write_layered(tmp_path / "file", (tmp_path / "inside").read_bytes(), Layers(zstd_level=1))

    assert await read_layered(tmp_path / "file", key.identity) == b"content"


async def test_layers_have_an_end(tmp_path: Path) -> None:
    content = b"content"
    for _ in range(5):
        content = load_zstd().compress(content)
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(SourceUnreadable, match="compressed or encrypted more than 4 times"):
        await read_layered(tmp_path / "file")


@pytest.mark.parametrize(
    ("level", "is_encrypted", "names", "onward"),
    [(1, False, ["zstd with a seek table"], None), (None, True, ["age"], "age"), (1, True, ["age", "zstd"], "age")],
)
async def test_layers_are_named(
    tmp_path: Path, key: Key, *, level: int | None, is_encrypted: bool, names: list[str], onward: str | None
) -> None:
    layers = Layers(level, (key.recipient,) if is_encrypted else ())
    await write_layered(tmp_path / "file", b"content", layers)

    async with AsyncExitStack() as stack:
        file = await stack.enter_async_context(FileSource(tmp_path / "file"))
        source = await unwrap_source(stack, file, Access(identities=(str(key.identity),)))
        assert list(layers_of(source)) == names
        assert (find_onward(source) if source.size is None else None) == onward


@pytest.mark.parametrize(("level", "threads"), [(1, 8), (6, 8), (7, 3), (12, 3), (13, 2), (22, 2)])
def test_threads_that_need_more_memory_are_fewer(monkeypatch: pytest.MonkeyPatch, level: int, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))

    assert usual_threads(level) == threads


def test_there_are_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})

    assert usual_threads(3) == 1
