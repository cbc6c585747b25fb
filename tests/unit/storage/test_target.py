from __future__ import annotations

import errno
import threading

import pytest

from asyncbackup.errors import TargetExists, TargetFull, TargetUnusable, TargetWriteFailed
from asyncbackup.storage import NullTarget, publish
from asyncbackup.storage.target import BRIEF, unwritten, wrap_os_errors
from tests.collecting import CollectingTarget


@pytest.mark.parametrize(
    ("count", "rest"),
    [
        (0, [b"abc", b"de", b"f"]),
        (2, [b"c", b"de", b"f"]),
        (3, [b"de", b"f"]),
        (4, [b"e", b"f"]),
        (6, []),
    ],
)
def test_what_is_left_after_a_short_write(count: int, rest: list[bytes]) -> None:
    assert unwritten([b"abc", bytearray(b"de"), memoryview(b"f")], count) == rest


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, TargetFull),
        (errno.EDQUOT, TargetFull),
        (errno.EFBIG, TargetFull),
        (errno.EIO, TargetWriteFailed),
        (errno.EPIPE, TargetWriteFailed),
    ],
)
def test_an_error_of_the_system_becomes_one_of_ours(code: int, kind: type[Exception]) -> None:
    error = OSError(code, "what the system says")

    with pytest.raises(kind, match="file: what the system says") as caught, wrap_os_errors("file"):
        raise error

    assert caught.value.__cause__ is error


def test_an_error_without_a_code_is_told_by_its_text() -> None:
    with pytest.raises(TargetUnusable, match="file: odd"), wrap_os_errors("file", TargetUnusable):
        raise OSError("odd")


def test_our_own_errors_pass() -> None:
    with pytest.raises(TargetExists), wrap_os_errors("file"):
        raise TargetExists("file")


async def test_the_null_target_counts_what_it_drops() -> None:
    async with NullTarget() as target:
        await target.append([b"abc", b"de"])
        await target.complete(b"beginning")

    assert target.can_patch
    assert target.bytes_written == 5


async def test_what_comes_before_a_write_runs_in_a_worker_thread_only_where_it_is_long() -> None:
    threads: list[threading.Thread] = []

    async with NullTarget() as target:
        await target.append([bytes(BRIEF)], before=lambda: threads.append(threading.current_thread()))
        await target.append([bytes(BRIEF), b"1"], before=lambda: threads.append(threading.current_thread()))

    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()


async def test_a_manifest_that_stands_nowhere_near_is_completed_after_the_data() -> None:
    order: list[str] = []

    class Noted(CollectingTarget):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.noted = name

        async def complete(self, beginning: bytes = b"") -> None:
            order.append(self.noted)
            await super().complete(beginning)

    await publish(Noted("data"), Noted("manifest"))

    assert order == ["data", "manifest"]
