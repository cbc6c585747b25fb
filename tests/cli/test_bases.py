"""A wrong base is refused by every verb that takes one: with both identities named, and nothing written."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup import connect
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage.image import marker_path, read_state, state_path
from asyncbackup.storage.publication import manifest_path
from tests.chains import SIZE, Files, make_snapshots, say_what_it_is
from tests.cli.command import Command, Served, serving
from tests.disks import OBJECT
from tests.folders import left_in

WITHOUT_MANIFEST = ("--object-size", "1M", "--size", SIZE, "--input-format", "collie")


class Untouched:
    """What a folder held before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = self._look()

    def _look(self) -> dict[str, tuple[bytes, int, int]]:
        found = {}
        for path in self.folder.iterdir():
            status = path.stat()
            found[path.name] = (path.read_bytes(), status.st_mtime_ns, status.st_ino)
        return found

    def check(self) -> None:
        now = self._look()
        assert sorted(now) == sorted(self.before)
        assert [name for name in now if now[name] != self.before[name]] == []


def roll(image: Path, *files: Path) -> list[object]:
    return ["export", *files, "--to", image, "--base-image", image]


def anew(image: Path, *files: Path) -> list[object]:
    return ["export", *files, "--to", image.with_name("new"), "--base-image", image]


def piped(image: Path, *files: Path) -> list[object]:
    return ["export", *files, "--to", "-", "--base-image", image]


def merged(image: Path, *files: Path) -> list[object]:
    return ["merge", *files, "--to", image.with_name("new"), "--base-image", image]


onto = pytest.mark.parametrize("verb", [roll, anew, piped, merged], ids=lambda it: it.__name__)
"""All that takes an image as a base."""

either_way = pytest.mark.parametrize("vouched", [[], ["--assume-base"]], ids=["", "assumed"])


# What we make says what it is


@pytest.mark.slow
def test_an_image_can_be_rolled_night_after_night(command: Command, files: Files) -> None:
    standby = files.folder / "standby"
    assert command("export", files.a, "--to", standby).code == 0

    for night, snapshot in ((files.ab, "b"), (files.bc, "c")):
        outcome = command(*roll(standby, night))
        assert (outcome.code, outcome.err) == (0, "")
        assert standby.read_bytes() == files.images[snapshot]
        state = asyncio.run(read_state(standby))
        assert state is not None
        assert state.identity == files.identities[snapshot]
        assert not state.assumed
    assert not marker_path(standby).exists()


def test_an_image_made_on_another_can_be_rolled(command: Command, files: Files) -> None:
    standby = files.image("a", "standby")
    assert command(*anew(standby, files.ab)).code == 0

    assert command(*roll(standby.with_name("new"), files.bc)).code == 0

    assert standby.with_name("new").read_bytes() == files.images["c"]


def test_an_image_of_another_size_than_the_vdi_says_nothing(command: Command, files: Files) -> None:
    assert command("export", files.a, "--to", files.folder / "large", "--size", "9M").code == 0

    assert (files.folder / "large").stat().st_size == 9 << 20
    assert asyncio.run(read_state(files.folder / "large")) is None


# Wrong bases


@onto
@either_way
def test_an_image_one_night_too_old_is_refused(
    command: Command, files: Files, verb: object, vouched: list[str]
) -> None:
    assert callable(verb)
    standby = files.image("a", "standby")
    folder = Untouched(files.folder)

    outcome = command(*verb(standby, files.bc), *vouched)

    assert outcome.code == 1
    assert str(files.identities["a"]) in outcome.err
    assert str(files.identities["b"]) in outcome.err
    assert outcome.out == b""
    folder.check()


@onto
@either_way
def test_an_older_increment_on_a_newer_image_is_refused(
    command: Command, files: Files, verb: object, vouched: list[str]
) -> None:
    assert callable(verb)
    standby = files.image("c", "standby")
    folder = Untouched(files.folder)

    outcome = command(*verb(standby, files.ab), *vouched)

    assert outcome.code == 1
    assert str(files.identities["a"]) in outcome.err
    assert str(files.identities["c"]) in outcome.err
    folder.check()


@either_way
def test_an_image_that_is_the_newest_backup_already_says_so(command: Command, files: Files, vouched: list[str]) -> None:
    standby = files.image("c", "standby")
    folder = Untouched(files.folder)

    outcome = command(*roll(standby, files.ab, files.bc), *vouched)

    assert outcome.code == 1
    assert f"is an image of {files.identities['c']} already" in outcome.err
    folder.check()


def other_vdi(files: Files, size: int) -> Path:
    """Make an image of another VDI, as an export does."""
    from dataclasses import replace

    image = files.folder / "standby"
    image.write_bytes(os.urandom(size))
    say_what_it_is(image, replace(files.identities["a"], vdi="other"))
    return image


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "size"),
    [
        *((verb, SIZE) for verb in (roll, anew, piped, merged)),
        # One judge has all verbs.
        (roll, SIZE + OBJECT),
        (roll, SIZE - OBJECT),
    ],
)
@either_way
def test_an_image_of_another_vdi_is_refused(
    command: Command, files: Files, verb: object, vouched: list[str], size: int
) -> None:
    assert callable(verb)
    image = other_vdi(files, size)
    folder = Untouched(files.folder)

    outcome = command(*verb(image, files.ab), *vouched)

    assert outcome.code == 1
    assert "of VDI 'other'" in outcome.err
    assert "of VDI 'disk'" in outcome.err
    folder.check()


@pytest.mark.parametrize(
    ("verb", "size"),
    [
        *((verb, SIZE - OBJECT) for verb in (roll, anew, piped, merged)),
        # One judge has all verbs.
        *((roll, size) for size in (SIZE + OBJECT, SIZE - 1, SIZE + 512, 0)),
    ],
)
@either_way
def test_an_image_of_another_size_is_neither_cut_nor_extended(
    command: Command, files: Files, verb: object, vouched: list[str], size: int
) -> None:
    assert callable(verb)
    image = files.image("a", "standby", has_state=False)
    os.truncate(image, size)
    folder = Untouched(files.folder)

    outcome = command(*verb(image, files.ab), *vouched)

    assert outcome.code == 1
    assert f"expected {SIZE} bytes, got {size}" in outcome.err
    folder.check()


@pytest.mark.parametrize("verb", [roll, anew, piped], ids=lambda it: it.__name__)
@pytest.mark.parametrize("size", [SIZE + OBJECT, SIZE - OBJECT])
def test_an_image_of_another_size_is_not_made_to_fit_increments_without_manifests(
    command: Command, files: Files, verb: object, size: int
) -> None:
    assert callable(verb)
    image = files.image("a", "standby", has_state=False)
    os.truncate(image, size)
    manifest_path(files.ab).unlink()
    folder = Untouched(files.folder)

    outcome = command(*verb(image, files.ab), "--assume-base", *WITHOUT_MANIFEST)

    assert outcome.code == 1
    assert f"standby has {size} bytes and would become {SIZE}, but no manifest says that the VDI did" in outcome.err
    folder.check()


def test_an_image_is_not_rolled_to_another_size_than_the_manifest_says(command: Command, files: Files) -> None:
    standby = files.image("a", "standby")
    folder = Untouched(files.folder)

    outcome = command(*roll(standby, files.ab), "--size", "8388096")

    assert outcome.code == 1
    assert f"how large the VDI is: expected {SIZE}, got 8388096" in outcome.err
    folder.check()


# What nothing proves


@onto
def test_an_image_without_a_state_is_taken_if_somebody_vouches_for_it(
    command: Command, files: Files, verb: object
) -> None:
    assert callable(verb)
    standby = files.image("a", "standby", has_state=False)
    folder = Untouched(files.folder)

    refused = command(*verb(standby, files.ab))
    folder.check()
    taken = command(*verb(standby, files.ab), "--assume-base")

    assert refused.code == 1
    assert "it has no state beside it that says what it is" in refused.err
    assert "--assume-base" in refused.err
    assert taken.code == 0
    told = taken.err if verb is piped else taken.out.decode()
    assert f"assumed, and not proved: {standby} is {files.identities['a']}, although it has no state" in told


@onto
def test_what_was_assumed_stands_in_the_json_report(command: Command, files: Files, verb: object) -> None:
    assert callable(verb)
    standby = files.image("a", "standby", has_state=False)

    outcome = command(*verb(standby, files.ab), "--assume-base", "--json")

    told = json.loads(outcome.err if verb is piped else outcome.out)
    assert str(files.identities["a"]) in told["assumed"]
    again = command("merge", *files.all, "--to", files.folder / "whole", "--json")
    assert json.loads(again.out)["assumed"] is None


@onto
def test_an_image_that_was_written_since_is_taken_only_if_somebody_vouches_for_it(
    command: Command, files: Files, verb: object
) -> None:
    assert callable(verb)
    standby = files.folder / "standby"
    assert command("export", files.a, "--to", standby).code == 0
    with standby.open("r+b") as image:
        image.seek(5 * OBJECT)
        image.write(b"a guest was here")
    folder = Untouched(files.folder)

    outcome = command(*verb(standby, files.bc))

    assert outcome.code == 1
    assert f"it was written after it was {files.identities['a']}" in outcome.err
    folder.check()


@onto
def test_digests_are_checked_whoever_vouches_for_the_base(command: Command, files: Files, verb: object) -> None:
    assert callable(verb)
    standby = files.image("c", "standby", has_state=False)
    folder = Untouched(files.folder)

    # One object at a time: several are wrong, and which is told first would be a race.
    outcome = command(*verb(standby, files.ab, files.bc), "--assume-base", "--in-flight", "1")

    assert outcome.code == 1
    assert "does not hold at object 1 what this backup was made against" in outcome.err
    folder.check()


def test_an_image_on_an_assumed_base_says_so_for_good(command: Command, files: Files) -> None:
    standby = files.image("a", "standby", has_state=False)
    assert command(*roll(standby, files.ab), "--assume-base").code == 0

    outcome = command(*roll(standby, files.bc))

    assert outcome.code == 0
    assert b"assumed, and not proved: " in outcome.out
    assert b"standby was made on a base that was assumed" in outcome.out
    state = asyncio.run(read_state(standby))
    assert state is not None
    assert state.assumed


def test_an_image_of_a_chain_that_nothing_proves_says_so_for_good(command: Command, files: Files) -> None:
    manifest_path(files.ab).unlink()
    standby = files.folder / "standby"
    making = ("export", *files.all, "--to", standby, "--object-size", "1M")

    refused = command(*making)
    made = command(*making, "--assume-base")

    assert refused.code == 1
    assert "--assume-base" in refused.err
    assert made.code == 0
    assert b"assumed, and not proved: the backups follow one another, although nothing proves that of" in made.out
    state = asyncio.run(read_state(standby))
    assert state is not None
    assert (state.identity, state.assumed) == (files.identities["c"], True)


def test_verify_does_not_call_a_merge_on_an_assumed_base_proved(command: Command, files: Files) -> None:
    unproved, proved = files.image("a", "unproved", has_state=False), files.image("a", "proved")
    vouched, known = files.folder / "vouched", files.folder / "known"
    for merged, base in ((vouched, unproved), (known, proved)):
        assert command("merge", files.ab, files.bc, "--to", merged, "--base-image", base, "--assume-base").code == 0

    outcomes = [command("verify", merged, *options) for merged in (vouched, known) for options in ((), ("--json",))]

    assert [outcome.code for outcome in outcomes] == [0] * 4
    first, *_, last = outcomes[0].out.decode().splitlines()
    assert "but it has 1 record with bytes of a base that nobody proved" in first
    assert last == "not proved: 1 of 1 backup with bytes of a base that nobody proved"
    assert b"not proved" not in outcomes[2].out
    reports = [json.loads(outcome.out) for outcome in outcomes[1::2]]
    assert [(report["good"], report["proved"]) for report in reports] == [(True, False), (True, True)]
    told = [(report["files"][0]["proved"], report["files"][0]["assumed"]) for report in reports]
    assert told == [(False, 1), (True, 0)]


@onto
@either_way
def test_a_damaged_state_is_named(command: Command, files: Files, verb: object, vouched: list[str]) -> None:
    assert callable(verb)
    standby = files.image("a", "standby")
    state_path(standby).write_bytes(state_path(standby).read_bytes().replace(b'"disk"', b'"dusk"'))
    folder = Untouched(files.folder)

    outcome = command(*verb(standby, files.ab), *vouched)

    assert outcome.code == 1
    assert "standby.state: at offset 0: this is no state of an image" in outcome.err
    folder.check()


def test_a_state_that_somebody_removed_is_what_the_message_says(command: Command, files: Files) -> None:
    standby = files.image("a", "standby")
    state_path(standby).write_bytes(b"noise")
    said = command(*roll(standby, files.ab)).err

    assert "remove that file" in said
    state_path(standby).unlink()
    assert command(*roll(standby, files.ab), "--assume-base").code == 0
    assert standby.read_bytes() == files.images["b"]


# Rolls that were interrupted


def half_roll(files: Files, image: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> str:
    """Let the disk be full in the middle of a roll; give what was said."""
    writes, pwrite = 0, os.pwrite

    def fail_later(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal writes
        writes += 1
        if writes == 3:
            pwrite(descriptor, b"torn", offset)
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail_later)
        outcome = command(*roll(image, files.ab, files.bc), "--in-flight", 1)
    assert outcome.code == 4
    return outcome.err


@pytest.fixture
def half(files: Files, monkeypatch: pytest.MonkeyPatch, command: Command) -> Path:
    """An image that b and c were half applied to."""
    standby = files.image("a", "standby")
    half_roll(files, standby, monkeypatch, command)
    return standby


def test_a_full_disk_says_that_the_image_is_half_rolled_and_what_finishes_it(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = files.image("a", "standby")

    said = half_roll(files, standby, monkeypatch, command)

    assert "standby: is half rolled: " in said
    assert "No space left on device" in said
    assert "run the interrupted command again" in said
    assert standby.read_bytes() not in files.images.values()
    assert command(*roll(standby, files.ab, files.bc)).code == 0
    assert standby.read_bytes() == files.images["c"]
    state = asyncio.run(read_state(standby))
    assert state is not None
    assert (state.identity, state.assumed) == (files.identities["c"], False)
    assert left_in(files.folder) == sorted(
        ["a", "a.manifest", "ab", "ab.manifest", "bc", "bc.manifest", "standby", "standby.state"]
    )


def test_a_half_rolled_image_is_made_anew_by_force_as_the_message_says(
    command: Command, files: Files, half: Path
) -> None:
    said = command(*roll(half, files.ab)).err
    assert "use `export --force`, without --base-image, on a full backup and its increments" in said

    assert command("export", files.a, files.ab, "--to", half, "--force").code == 0

    assert half.read_bytes() == files.images["b"]
    assert not marker_path(half).exists()
    assert command(*roll(half, files.bc)).code == 0
    assert half.read_bytes() == files.images["c"]


@onto
@either_way
def test_a_half_rolled_image_is_no_base(
    command: Command, files: Files, half: Path, verb: object, vouched: list[str]
) -> None:
    assert callable(verb)
    folder = Untouched(files.folder)

    outcome = command(*verb(half, files.bc), *vouched)

    assert outcome.code == 2
    assert "standby: is half rolled" in outcome.err
    folder.check()


def test_a_half_rolled_image_is_not_replaced_without_force(command: Command, files: Files, half: Path) -> None:
    folder = Untouched(files.folder)

    assert command("export", *files.all, "--to", half).code == 3

    folder.check()


def other_file(half: Path) -> None:
    half.with_name("other").write_bytes(half.read_bytes())
    half.with_name("other").replace(half)


def other_size(half: Path) -> None:
    os.truncate(half, SIZE + 512)


def other_state(half: Path) -> None:
    state = asyncio.run(read_state(half))
    assert state is not None
    say_what_it_is(half, state.identity)


def no_state(half: Path) -> None:
    state_path(half).unlink()


def older_copy(half: Path) -> None:
    """Put an older image in its place, as ``cp -p`` does: into the same file, with the time of the other one."""
    state = asyncio.run(read_state(half))
    assert state is not None
    half.write_bytes(bytes(SIZE))
    os.utime(half, ns=(0, state.modified_ns - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [other_file, other_size, other_state, no_state, older_copy], ids=lambda it: it.__name__
)
@either_way
def test_a_roll_is_not_resumed_on_another_image(
    command: Command, files: Files, half: Path, change: object, vouched: list[str]
) -> None:
    assert callable(change)
    change(half)
    folder = Untouched(files.folder)

    outcome = command(*roll(half, files.ab, files.bc), *vouched)

    assert outcome.code == 2
    assert "standby: cannot be finished: it has" in outcome.err or "finished: it is another file" in outcome.err
    assert "`export --force`" in outcome.err
    folder.check()
    assert command("export", *files.all, "--to", half, "--force").code == 0
    assert half.read_bytes() == files.images["c"]


def test_what_was_assumed_holds_when_a_roll_is_resumed(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = files.image("a", "standby", has_state=False)
    writes, pwrite = 0, os.pwrite

    def fail_later(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail_later)
        assert command(*roll(standby, files.ab), "--in-flight", 1, "--assume-base").code == 4

    outcome = command(*roll(standby, files.ab))

    assert outcome.code == 0
    assert b"assumed, and not proved: " in outcome.out
    state = asyncio.run(read_state(standby))
    assert state is not None
    assert state.assumed


# In the cluster


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(snapshots_store()) as running:
        yield running


def snapshots_store() -> MemoryStore:
    """Make a store that holds the disk of tests.chains."""
    from anyio.from_thread import start_blocking_portal

    store = MemoryStore()
    sheep = Sheep(store)

    async def fill() -> None:
        async with connect(sheep.host, sheep.port) as cluster:
            await make_snapshots(cluster)

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sheep):
        portal.call(fill)
    return store


@pytest.fixture
def backed(command: Command, served: Served, tmp_path: Path) -> list[Path]:
    """A full backup of a, and the increments to b and c, of what is served."""
    made = [tmp_path / "full", tmp_path / "b", tmp_path / "c"]
    for file, options in zip(made, (("-s", "a"), ("-s", "b", "-F", "a"), ("-s", "c", "-F", "b")), strict=True):
        assert command("backup", "disk", file, *options, "-p", served.port).code == 0
    return made


@either_way
def test_a_restore_on_another_snapshot_is_refused(
    command: Command, served: Served, backed: list[Path], vouched: list[str]
) -> None:
    outcome = command("restore", backed[2], "--to", "new", "--base", "a", *vouched, "-p", served.port)

    assert outcome.code == 1
    assert "expected snapshot 2 'b' of VDI 'disk'" in outcome.err
    assert "got snapshot 1 'a' of VDI 'disk'" in outcome.err
    assert b"new" not in command("vdi", "list", "-p", served.port).out


def test_increments_without_manifests_are_restored_if_somebody_vouches_for_the_base(
    command: Command, served: Served, backed: list[Path]
) -> None:
    manifest_path(backed[1]).unlink()
    options = ("--base", "a", "--base-vdi", "disk", "--object-size", "1M", "--size", SIZE, "-p", served.port)

    refused = command("restore", backed[1], "--to", "new", *options)
    left = command("vdi", "list", "-p", served.port).out
    taken = command("restore", backed[1], "--to", "new", "--assume-base", "--json", *options)

    assert refused.code == 1
    assert "--assume-base" in refused.err
    assert b"new" not in left
    assert taken.code == 0
    assert "has no manifest that says what it was made against" in json.loads(taken.out)["assumed"]


def test_increments_are_restored_on_an_image_of_their_base(
    command: Command, served: Served, backed: list[Path], files: Files
) -> None:
    image = files.folder / "image"
    assert command("export", backed[0], "--to", image).code == 0

    made = command("restore", *backed[1:], "--to", "new", "--base-image", image, "-p", served.port)

    assert (made.code, made.err) == (0, "")
    assert f", made on {image}".encode() in made.out
    assert b"assumed" not in made.out
    same = command("verify", *backed, "--against", "new", "--assume-base", "--sample", "100", "-p", served.port)
    assert same.code == 0, same


def test_an_image_of_another_snapshot_or_that_nothing_proves_is_refused_by_restore(
    command: Command, served: Served, backed: list[Path], files: Files
) -> None:
    old, unproved = files.image("a", "old"), files.image("b", "unproved", has_state=False)
    restoring = ("restore", backed[2], "--to", "new", "-p", served.port)

    wrong = command(*restoring, "--base-image", old, "--assume-base")
    refused = command(*restoring, "--base-image", unproved)
    left = command("vdi", "list", "-p", served.port).out
    taken = command(*restoring, "--base-image", unproved, "--assume-base", "--json")

    assert wrong.code == refused.code == 1
    assert "expected snapshot 2 'b' of VDI 'disk'" in wrong.err
    assert "it has no state beside it" in refused.err
    assert "--assume-base" in refused.err
    assert b"new" not in left
    assert taken.code == 0
    told = json.loads(taken.out)
    assert (told["base"], told["base_image"]) == (None, str(unproved))
    assert "although it has no state beside it" in told["assumed"]


@pytest.mark.slow
@pytest.mark.parametrize("snapshot", ["a", "1"])
def test_a_snapshot_in_the_cluster_is_a_base_of_an_image(
    command: Command, served: Served, backed: list[Path], files: Files, snapshot: str
) -> None:
    image = files.folder / "image"

    outcome = command("export", backed[1], "--to", image, "--base", snapshot, "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert image.read_bytes() == files.images["b"]
    assert command(*roll(image, backed[2])).code == 0
    assert image.read_bytes() == files.images["c"]


def test_a_snapshot_in_the_cluster_is_a_base_of_a_pipe(
    command: Command, served: Served, backed: list[Path], files: Files
) -> None:
    outcome = command("export", backed[1], "--to", "-", "--base", "a", "-p", served.port)

    assert outcome.code == 0
    assert outcome.out == files.images["b"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["export", "merge"])
@either_way
def test_another_snapshot_in_the_cluster_is_refused(
    command: Command, served: Served, backed: list[Path], verb: str, vouched: list[str]
) -> None:
    folder = Untouched(backed[0].parent)

    outcome = command(verb, backed[2], "--to", backed[0].with_name("new"), "--base", "a", *vouched, "-p", served.port)

    assert outcome.code == 1
    assert "expected snapshot 2 'b' of VDI 'disk'" in outcome.err
    assert "got snapshot 1 'a' of VDI 'disk'" in outcome.err
    folder.check()


def test_a_merge_takes_what_lies_between_from_a_snapshot_in_the_cluster(
    command: Command, served: Served, backed: list[Path], files: Files
) -> None:
    new = backed[0].with_name("new")

    assert command("merge", *backed[1:], "--to", new, "--base", "a", "-p", served.port).code == 0

    assert command("export", new, "--to", "-", "--base", "a", "-p", served.port).code == 0
    standby = files.folder / "image"
    assert command("export", backed[0], "--to", standby).code == 0
    assert command(*roll(standby, new)).code == 0
    assert standby.read_bytes() == files.images["c"]


def test_what_is_left_out_goes_on_what_the_message_says(
    command: Command, served: Served, backed: list[Path], files: Files
) -> None:
    for verb, target in (("export", files.folder / "image"), ("restore", "new")):
        options = ("-p", served.port)
        outcome = command(verb, backed[1], "--to", target, *options)

        assert outcome.code == 1
        assert "that snapshot with --base " in outcome.err
        assert command(verb, backed[1], "--to", target, "--base", "a", *options).code == 0


# verify --against


@pytest.mark.parametrize("vouched", [[], ["--assume-base"]], ids=["", "assumed"])
def test_another_snapshot_than_was_backed_up_is_not_the_same(
    command: Command, served: Served, backed: list[Path], vouched: list[str]
) -> None:
    outcome = command("verify", backed[1], "--against", "disk", "-s", "c", *vouched, "-p", served.port)

    assert outcome.code == 1
    assert "expected snapshot 2 'b' of VDI 'disk'" in outcome.err
    assert "got snapshot 3 'c' of VDI 'disk'" in outcome.err
    assert b"the same" not in outcome.out


def test_the_snapshot_that_was_backed_up_is_compared_by_default(
    command: Command, served: Served, backed: list[Path]
) -> None:
    outcome = command("verify", *backed[:2], "--against", "disk", "-p", served.port)

    assert outcome.code == 0
    assert b"disk b: the same; compared" in outcome.out


def test_a_live_backup_is_compared_with_the_working_vdi(command: Command, served: Served, tmp_path: Path) -> None:
    live = tmp_path / "live"
    assert command("backup", "disk", live, "--live", "-p", served.port).code == 0

    outcome = command("verify", live, "--against", "disk", "-p", served.port)

    assert outcome.code == 0
    assert b"disk (the working VDI): the same" in outcome.out


def test_a_restored_vdi_says_that_it_equals_what_was_backed_up(
    command: Command, served: Served, backed: list[Path]
) -> None:
    assert command("restore", *backed, "--to", "new", "-p", served.port).code == 0

    outcome = command("verify", *backed, "--against", "new", "-p", served.port)

    assert outcome.code == 0
    assert b"assumed" not in outcome.out


def test_a_vdi_that_does_not_say_what_it_equals_is_compared_if_somebody_vouches_for_it(
    command: Command, served: Served, backed: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    bare = [Path(shutil.copy(file, tmp_path / "bare")) for file in backed]
    restore = ("restore", *bare, "--to", "new", *WITHOUT_MANIFEST, "--assume-base", "-p", served.port)
    assert command(*restore).code == 0
    against = ("verify", *backed, "--against", "new", "-p", served.port)

    refused = command(*against)
    taken = command(*against, "--assume-base")

    assert refused.code == 1
    assert "got the working VDI of VDI 'new'" in refused.err
    assert "--assume-base" in refused.err
    assert taken.code == 0
    assert b"new (the working VDI): the same" in taken.out
    assert b"assumed, and not proved: VDI 'new' holds what snapshot 3 'c' of VDI 'disk'" in taken.out


def test_a_sample_takes_its_base_from_the_vdi_that_was_backed_up(
    command: Command, served: Served, backed: list[Path]
) -> None:
    assert command("restore", backed[1], "--to", "new", "--base", "a", "-p", served.port).code == 0

    outcome = command(*("verify", backed[1], "--against", "new", "--sample", "100", "--assume-base", "-p", served.port))

    assert outcome.code == 0
    assert b"audited" in outcome.out


def test_a_sample_says_which_snapshot_it_needs(command: Command, files: Files) -> None:
    # A cluster with a VDI of the same content, and none of the snapshots.
    with serving(MemoryStore()) as empty:
        assert command("restore", *files.all, "--to", "disk", "-p", empty.port).code == 0
        sampling = ("--against", "disk", "--assume-base", "--sample", "100", "-p", empty.port)

        increments = command("verify", *files.all[1:], *sampling)
        whole = command("verify", *files.all, *sampling)

    assert increments.code == 1
    assert f"a sample of {files.ab} needs {files.identities['a']}" in increments.err
    assert "--sample" in increments.err
    assert whole.code == 0
    assert b"audited" in whole.out


# What makes no sense


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "a", "--to", "i", "--base", "s", "--base-image", "j"],
        ["export", "a", "--to", "i", "--base-vdi", "vm"],
        ["merge", "a", "--to", "i", "--base", "s", "--base-image", "j"],
        ["merge", "a", "--to", "i", "--base-vdi", "vm"],
        ["restore", "a", "--to", "i", "--base", "s", "--base-image", "j"],
        ["restore", "a", "--to", "i", "--base-vdi", "vm"],
        ["restore", "a", "--to", "i", "-s", "monday"],
        ["merge", "a", "--to", "i", "-s", "monday"],
        ["merge", "a", "--to", "i", "--no-check-base"],
        ["export", "a", "--to", "i", "--base", "0"],
    ],
    ids=" ".join,
)
def test_a_base_is_named_in_one_way(command: Command, arguments: list[str]) -> None:
    assert command(*arguments).code == 64
