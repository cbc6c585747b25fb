"""Objects appear only complete; what fails leaves nothing."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable

import anyio
import obstore
import pytest
from anyio import to_thread
from obstore.store import MemoryStore

from asyncbackup.errors import TargetExists, TargetFull, TargetUnusable, TargetWriteFailed
from asyncbackup.storage.access import Access
from asyncbackup.storage.location import find_object
from asyncbackup.storage.object_store import StoredObject, open_object
from asyncbackup.storage.object_target import ObjectTarget
from asyncbackup.storage.target import HoldingTarget, publish
from tests.object_stores import Fault, Request, S3Server, always, cut, cut_after_half, fail, forbid, lose, times

PART = 8 << 20
SUFFIX = ".manifest"


def memory_place(key: str = "box/vm1") -> StoredObject:
    return StoredObject(MemoryStore(), key, f"memory://{key}")


def s3_place(s3: S3Server, key: str = "vm1") -> tuple[str, StoredObject]:
    bucket = s3.new_bucket()
    location = find_object(f"s3://{bucket}/{key}")
    assert location is not None
    return bucket, open_object(location, Access({**s3.options, "max_retries": "2"}))


def stored(place: StoredObject) -> bytes:
    return bytes(obstore.get(place.store, place.key).bytes())


def put(place: StoredObject, content: bytes = b"old") -> None:
    obstore.put(place.store, place.key, content)


def exists(place: StoredObject) -> bool:
    return len(obstore.list(place.store, place.key).collect()) > 0


async def write(place: StoredObject, *parts: bytes, then: Callable[[], object] = lambda: None) -> None:
    async with ObjectTarget(place) as target:
        for part in parts:
            await target.append([part])
        then()
        await target.complete()


async def write_both(place: StoredObject, data: bytes, lines: bytes) -> None:
    async with ObjectTarget(place, attached=[SUFFIX]) as target, ObjectTarget.beside(target, SUFFIX) as manifest:
        await target.append([data])
        await manifest.append([lines])
        await publish(target, manifest)


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def test_the_object_is_what_was_appended() -> None:
    place = memory_place()
    async with ObjectTarget(place) as target:
        await target.append([b"one ", bytearray(b"two ")])
        await target.append([memoryview(b"three")])
        await target.complete()
    assert stored(place) == b"one two three"


async def test_an_object_of_many_parts_is_what_was_appended() -> None:
    place, content = memory_place(), content_of(3 * PART + 12345)
    async with ObjectTarget(place) as target:
        for start in range(0, len(content), 5_000_001):
            await target.append([content[start : start + 5_000_001]])
        await target.complete()
    assert stored(place) == content


async def test_buffers_are_free_when_append_returns() -> None:
    place, buffer = memory_place(), bytearray(b"a" * PART)
    async with ObjectTarget(place) as target:
        await target.append([buffer])
        buffer[:] = b"b" * PART
        await target.append([buffer])
        buffer[:] = b"c" * PART
        await target.complete()
    assert stored(place) == b"a" * PART + b"b" * PART


@pytest.mark.parametrize("size", [0, 10, PART + 1])
async def test_before_is_called_once_before_buffers_are_taken(size: int) -> None:
    place, buffer, calls = memory_place(), bytearray(size), []

    def before() -> None:
        calls.append(1)
        buffer[:] = b"x" * size

    async with ObjectTarget(place) as target:
        await target.append([buffer], before=before)
        await target.complete()
    assert calls == [1]
    assert stored(place) == b"x" * size


async def test_nothing_is_visible_before_it_is_complete(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    async with ObjectTarget(place) as target:
        await target.append([bytes(3 * PART)])
        assert s3.objects(bucket) == []
        await target.complete()
    assert s3.objects(bucket) == ["vm1"]
    assert s3.uploads(bucket) == []


async def test_an_object_that_exists_is_refused_when_the_target_is_entered() -> None:
    place = memory_place()
    put(place)
    with pytest.raises(TargetExists, match="memory://box/vm1: exists already"):
        async with ObjectTarget(place):
            pass
    assert stored(place) == b"old"


async def test_what_belongs_to_it_and_exists_is_refused() -> None:
    place = memory_place()
    put(place.beside(SUFFIX))
    with pytest.raises(TargetExists, match=r"vm1\.manifest: exists already"):
        await write_both(place, b"data", b"lines")


@pytest.mark.parametrize("size", [10, 2 * PART])
async def test_an_object_that_comes_meanwhile_is_refused_before_completion(s3: S3Server, size: int) -> None:
    bucket, place = s3_place(s3)
    with pytest.raises(TargetExists):
        await write(place, bytes(size), then=lambda: put(place))
    assert s3.content(bucket, "vm1") == b"old"
    assert s3.uploads(bucket) == []


async def test_an_object_is_replaced_when_that_was_asked_for() -> None:
    place = memory_place()
    put(place)
    async with ObjectTarget(place, replace=True) as target:
        await target.append([b"new"])
        assert stored(place) == b"old"
        await target.complete()
    assert stored(place) == b"new"


async def test_what_is_not_completed_leaves_what_it_should_replace() -> None:
    place = memory_place()
    put(place)
    async with ObjectTarget(place, replace=True) as target:
        await target.append([bytes(2 * PART)])
    assert stored(place) == b"old"


async def test_both_become_visible_data_before_manifest(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    await write_both(place, bytes(2 * PART), b"lines")
    assert s3.objects(bucket) == ["vm1", "vm1.manifest"]
    written = [request.key for request in s3.requests if request.method in ("PUT", "POST")]
    assert written.index("vm1.manifest") > len(written) - 1 - written[::-1].index("vm1")


async def test_if_the_manifest_fails_the_data_goes(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    s3.faults.append(always(forbid, lambda request: request.method == "PUT" and request.key.endswith(SUFFIX)))
    with pytest.raises(TargetWriteFailed, match=r"vm1\.manifest: the store does not permit this"):
        await write_both(place, b"data", b"lines")
    assert s3.objects(bucket) == []


async def test_data_that_cannot_be_removed_again_is_spoken_of(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    s3.faults.append(always(forbid, lambda request: request.method == "PUT" and request.key.endswith(SUFFIX)))
    s3.faults.append(always(forbid, lambda request: request.method in ("DELETE", "POST")))
    with pytest.raises(TargetWriteFailed) as caught:
        await write_both(place, b"data", b"lines")
    assert caught.value.__notes__ == [f"{place.name} stays, but what belongs to it is missing: remove it"]
    assert s3.objects(bucket) == ["vm1"]


async def test_an_abandoned_manifest_does_not_appear_and_an_old_one_goes() -> None:
    place = memory_place()
    put(place)
    put(place.beside(SUFFIX))
    async with (
        ObjectTarget(place, replace=True, attached=[SUFFIX]) as data,
        ObjectTarget.beside(data, SUFFIX) as manifest,
    ):
        await manifest.append([b"lines"])
        await manifest.abandon()
        await data.append([b"new"])
        await publish(data)
    assert stored(place) == b"new"
    assert not exists(place.beside(SUFFIX))


class _Failure(Exception):
    pass


def _fail() -> None:
    raise _Failure


async def test_what_fails_leaves_neither_object_nor_upload(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    with pytest.raises(_Failure):
        await write(place, bytes(3 * PART), then=_fail)
    assert "uploads=" in [request.query for request in s3.requests]
    assert s3.objects(bucket) == s3.uploads(bucket) == []


async def test_what_is_left_early_leaves_neither_object_nor_upload(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    async with ObjectTarget(place) as target:
        await target.append([bytes(3 * PART)])
        await target.abandon()
        assert s3.objects(bucket) == s3.uploads(bucket) == []


async def test_a_cancellation_leaves_neither_object_nor_upload(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    with anyio.CancelScope() as scope:
        async with ObjectTarget(place) as target:
            await target.append([bytes(3 * PART)])
            scope.cancel()
            await target.append([bytes(PART)])
    assert scope.cancelled_caught
    assert s3.objects(bucket) == s3.uploads(bucket) == []


async def test_a_part_that_fails_once_is_sent_again(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    content = content_of(3 * PART)
    s3.faults.append(times(1, fail, lambda request: "partNumber=2" in request.query))
    s3.faults.append(times(1, cut, lambda request: "partNumber=3" in request.query))
    async with ObjectTarget(place) as target:
        await target.append([content])
        await target.complete()
    assert s3.content(bucket, "vm1") == content


@pytest.mark.parametrize("which", ["partNumber=1", "partNumber=3", "uploads"])
async def test_what_always_fails_is_an_error_and_leaves_nothing(s3: S3Server, which: str) -> None:
    bucket, place = s3_place(s3)
    s3.faults.append(always(fail, lambda request: which in request.query))
    with pytest.raises(TargetWriteFailed, match="answered 500 Internal Server Error, and it was asked 3 times"):
        await write(place, *[bytes(PART)] * 6)
    assert s3.objects(bucket) == s3.uploads(bucket) == []


async def test_a_completion_that_fails_leaves_nothing(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    s3.faults.append(always(fail, lambda request: request.method == "POST" and "uploadId" in request.query))
    with pytest.raises(TargetWriteFailed):
        await write(place, bytes(2 * PART))
    assert s3.objects(bucket) == s3.uploads(bucket) == []


def _completes(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def _puts(request: Request) -> bool:
    return request.method == "PUT" and "uploadId" not in request.query


@pytest.mark.parametrize("loss", [lose, cut_after_half])
@pytest.mark.parametrize("size", [100, 2 * PART])
async def test_what_the_store_completed_is_complete_if_its_answer_is_lost(s3: S3Server, size: int, loss: Fault) -> None:
    bucket, place = s3_place(s3)
    s3.faults.append(always(loss, lambda request: _completes(request) or _puts(request)))
    await write_both(place, bytes(size), b"lines")
    assert (s3.content(bucket, "vm1"), s3.content(bucket, "vm1.manifest")) == (bytes(size), b"lines")


async def test_a_new_object_gets_its_manifest_if_the_answer_to_its_completion_is_lost(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    await write_both(place, b"old", b"old lines")
    s3.faults.append(always(lose, _completes))
    async with (
        ObjectTarget(place, replace=True, attached=[SUFFIX]) as target,
        ObjectTarget.beside(target, SUFFIX) as manifest,
    ):
        await target.append([bytes(2 * PART)])
        await manifest.append([b"new lines"])
        await publish(target, manifest)
    assert (s3.content(bucket, "vm1"), s3.content(bucket, "vm1.manifest")) == (bytes(2 * PART), b"new lines")


async def replace_both(place: StoredObject) -> None:
    async with (
        ObjectTarget(place, replace=True, attached=[SUFFIX]) as target,
        ObjectTarget.beside(target, SUFFIX) as manifest,
    ):
        await target.append([b"new"])
        await manifest.append([b"new lines"])
        await publish(target, manifest)


async def test_an_old_manifest_does_not_stay_beside_a_new_object(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    await write_both(place, b"old", b"old lines")
    s3.faults.append(always(forbid, lambda request: _puts(request) and request.key.endswith(SUFFIX)))
    with pytest.raises(TargetWriteFailed) as caught:
        await replace_both(place)
    assert s3.objects(bucket) == ["vm1"]
    assert s3.content(bucket, "vm1") == b"new"
    assert caught.value.__notes__ == [f"{place.name} is the new one, and lacks what belongs to it: make it again"]


async def test_an_old_manifest_that_stays_beside_a_new_object_is_spoken_of(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    await write_both(place, b"old", b"old lines")
    s3.faults.append(always(forbid, lambda request: _puts(request) and request.key.endswith(SUFFIX)))
    s3.faults.append(always(forbid, lambda request: request.method in ("DELETE", "POST")))
    with pytest.raises(TargetWriteFailed) as caught:
        await replace_both(place)
    assert s3.objects(bucket) == ["vm1", "vm1.manifest"]
    assert caught.value.__notes__ == [f"{place.name} is the new one, but what belongs to it is not: make it again"]


async def test_an_old_object_of_the_same_size_is_not_taken_for_the_new_one(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    await write(place, b"old")
    s3.faults.append(always(cut, _puts))
    async with ObjectTarget(place, replace=True) as target:
        await target.append([b"new"])
        with pytest.raises(TargetWriteFailed, match="the connection was cut"):
            await target.complete()
    assert s3.content(bucket, "vm1") == b"old"


async def test_a_store_that_does_not_say_what_it_has_is_spoken_of(s3: S3Server) -> None:
    _, place = s3_place(s3)

    def fail_all() -> None:
        s3.faults.append(always(lose, _completes))
        s3.faults.append(always(fail, lambda request: request.method == "HEAD" and done()))

    def done() -> bool:
        return any(map(_completes, s3.requests))

    with pytest.raises(TargetWriteFailed) as caught:
        await write(place, bytes(2 * PART), then=fail_all)
    assert caught.value.__notes__ == [f"the store did not say whether {place.name} is complete: look there"]


@pytest.mark.parametrize(("fault", "which"), [(fail, "partNumber=2"), (cut_after_half, "uploads"), (lose, "uploads")])
async def test_parts_that_may_stay_after_a_failure_are_spoken_of(s3: S3Server, fault: Fault, which: str) -> None:
    bucket, place = s3_place(s3)
    s3.faults.append(always(fault, lambda request: which in request.query))
    s3.faults.append(always(fail, lambda request: request.method == "DELETE"))
    with pytest.raises(TargetWriteFailed) as caught:
        await write(place, *[bytes(PART)] * 6)
    assert s3.uploads(bucket)
    assert caught.value.__notes__ == [
        f"the store did not say that it dropped the parts of {place.name}: perhaps it keeps them"
    ]


async def test_an_upload_whose_number_was_lost_is_begun_again_and_stays_open(s3: S3Server) -> None:
    """The client sends the request again by itself, and nobody knows the number of the first one."""
    bucket, place = s3_place(s3)
    s3.faults.append(times(1, lose, lambda request: "uploads" in request.query))

    await write(place, bytes(2 * PART))

    assert s3.content(bucket, place.key) == bytes(2 * PART)
    assert len(s3.uploads(bucket)) == 1


async def test_an_upload_that_the_store_dropped_is_told_as_such(s3: S3Server) -> None:
    """As a rule of the bucket does with uploads that take too long."""
    bucket, place = s3_place(s3)

    def drop() -> None:
        s3.backend.buckets[bucket].multiparts.clear()

    with pytest.raises(TargetWriteFailed, match="the store has dropped what was sent so far"):
        await write(place, bytes(2 * PART), then=drop)


async def test_parts_that_the_store_does_not_drop_are_spoken_of(s3: S3Server) -> None:
    _, place = s3_place(s3)
    s3.faults.append(always(fail, lambda request: request.method == "DELETE"))
    with pytest.raises(_Failure) as caught:
        await write(place, bytes(2 * PART), then=_fail)
    assert caught.value.__notes__ == [
        f"the store did not say that it dropped the parts of {place.name}: perhaps it keeps them"
    ]


async def test_a_store_that_hangs_holds_a_cancellation_up_only_for_a_while(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncbackup.storage.object_target._GRACE_S", 0.01)
    bucket, place = s3_place(s3)
    released, hanging = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if "partNumber" in request.query:
            hanging.set()
            released.wait(10)

    s3.faults.append(hold)
    notes: list[str] = []
    with anyio.CancelScope() as scope:
        try:
            async with ObjectTarget(place) as target:
                # Three are under way, and the fourth waits for that, so the end of the stream is not seen.
                await target.append([bytes(4 * PART)])
                await to_thread.run_sync(hanging.wait, 10)
                scope.cancel()
                await target.append([bytes(PART)])
        except anyio.get_cancelled_exc_class() as cancelled:
            notes += cancelled.__notes__
            raise
        finally:
            released.set()
    assert notes == [f"the store did not say that it dropped the parts of {place.name}: perhaps it keeps them"]
    # When the store answers, the parts go after all.
    assert target._upload is not None
    await asyncio.wait([target._upload])
    assert s3.uploads(bucket) == []
    assert s3.objects(bucket) == []


class Holding:
    """Holds requests of one kind up, until they are released."""

    def __init__(self, s3: S3Server, matches: Callable[[Request], bool]) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        self._matches = matches
        s3.faults.append(self)

    def __call__(self, request: Request) -> None:
        if self._matches(request):
            self.begun.set()
            self.released.wait(20)

    async def wait(self) -> None:
        assert await to_thread.run_sync(self.begun.wait, 20)


async def cancel_when(holding: Holding, place: StoredObject, data: bytes, then: Callable[[], object]) -> list[str]:
    """Cancel the writing of data and manifest when it is held up, then call ``then``. Give the notes."""
    notes: list[str] = []

    async def write_it() -> None:
        with scope:
            try:
                await write_both(place, data, b"lines")
            except anyio.get_cancelled_exc_class() as cancelled:
                notes.extend(getattr(cancelled, "__notes__", ()))
                raise

    scope = anyio.CancelScope()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(write_it)
            await holding.wait()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            then()
    finally:
        holding.released.set()
    return notes


async def test_a_cancellation_while_the_last_parts_are_sent_leaves_neither_object_nor_upload(s3: S3Server) -> None:
    bucket, place = s3_place(s3)
    holding = Holding(s3, lambda request: "partNumber" in request.query)
    assert await cancel_when(holding, place, bytes(6 * PART), holding.released.set) == []
    assert s3.objects(bucket) == s3.uploads(bucket) == []


@pytest.mark.parametrize("size", [100, 2 * PART])
async def test_a_store_that_hangs_at_the_end_holds_a_cancellation_up_only_for_a_while(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("asyncbackup.storage.object_target._GRACE_S", 0.01)
    bucket, place = s3_place(s3)
    holding = Holding(s3, lambda request: _completes(request) or _puts(request))
    [note] = await cancel_when(holding, place, bytes(size), lambda: None)
    assert f"whether {place.name} is complete: look there" in note
    assert "if it is, make it again: what belongs to it was not written" in note
    assert "vm1.manifest" not in s3.objects(bucket)


@pytest.mark.parametrize("size", [100, 2 * PART])
async def test_an_end_that_the_store_reaches_soon_after_a_cancellation_completes_both(s3: S3Server, size: int) -> None:
    bucket, place = s3_place(s3)
    holding = Holding(s3, lambda request: _completes(request) or _puts(request))
    assert await cancel_when(holding, place, bytes(size), holding.released.set) == []
    assert s3.objects(bucket) == ["vm1", "vm1.manifest"]


async def test_a_manifest_that_may_be_missing_after_a_cancellation_is_spoken_of(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncbackup.storage.object_target._GRACE_S", 0.01)
    bucket, place = s3_place(s3)
    holding = Holding(s3, lambda request: _puts(request) and request.key.endswith(SUFFIX))
    assert await cancel_when(holding, place, bytes(2 * PART), lambda: None) == [
        f"{place.name} is complete, but the store did not say whether what belongs to it is: look there"
    ]
    assert "vm1" in s3.objects(bucket)


async def test_an_upload_has_begun_when_it_is_asked_for() -> None:
    """The target relies on obstore: what it gives is a future of what runs already, not a coroutine."""
    assert isinstance(obstore.put_async(MemoryStore(), "a", b"b"), asyncio.Future)


async def test_a_bucket_that_is_missing_is_said(s3: S3Server) -> None:
    location = find_object("s3://no-such-bucket/vm1")
    assert location is not None
    with pytest.raises(TargetWriteFailed, match="s3://no-such-bucket/vm1: there is no such bucket"):
        await write(open_object(location, Access(s3.options)), b"data")


async def test_a_store_that_does_not_permit_to_look_is_unusable(s3: S3Server) -> None:
    _, place = s3_place(s3)
    s3.faults.append(always(forbid, lambda request: request.method == "HEAD"))
    with pytest.raises(TargetUnusable, match="the store does not permit this"):
        async with ObjectTarget(place):
            pass


async def test_a_slow_store_stops_the_writer(s3: S3Server) -> None:
    """With memory for five parts, no more than five are taken while the store takes none."""
    _, place = s3_place(s3)
    taken = 0

    def hold(request: Request) -> None:
        if "partNumber" in request.query:
            released.wait(10)

    released = threading.Event()
    s3.faults.append(hold)
    async with ObjectTarget(place) as target:
        for _ in range(3):
            await target.append([bytes(PART)])
            taken += 1
        with anyio.move_on_after(0.3):
            for _ in range(20):
                await target.append([bytes(PART)])
                taken += 1
        released.set()
    assert taken <= 5


async def test_reserving_tells_what_is_held() -> None:
    target = ObjectTarget(memory_place())
    assert isinstance(target, HoldingTarget)
    assert target.reserve(None, 128 << 20) == 40 << 20
    assert target.reserve(1000, 128 << 20) == 1000


async def test_an_object_with_too_many_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.storage.parts.MOST_PARTS", 2)
    with pytest.raises(TargetFull, match="here of 8388608 bytes"):
        await write(memory_place(), bytes(3 * PART))
