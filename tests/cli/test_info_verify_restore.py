from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.command import PROGRAM, Command, Served, disk_store, serving, start
from tests.disks import OBJECT, OBJECTS

OPTIONS = ("--object-size", str(OBJECT), "--size", str(OBJECT * OBJECTS))


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(disk_store()) as running:
        yield running


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capfdbinary)


@pytest.fixture
def files(command: Command, served: Served, tmp_path: Path) -> list[Path]:
    """A full backup and its increment."""
    made = [tmp_path / "full", tmp_path / "increment"]
    for file, options in zip(made, (("-s", "a"), ("-s", "b", "-F", "a")), strict=True):
        assert command("backup", "disk", file, *options, "-p", served.port).code == 0
    return made


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_info_tells_what_a_file_is(command: Command, files: list[Path]) -> None:
    outcome = command("info", files[1])

    assert (outcome.code, outcome.err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in outcome.out.decode().splitlines())
    assert told["format"] == "collie"
    assert told["records"] == "5"
    assert told["vdi"].startswith("disk, 8.0 MiB")
    assert told["of"].startswith("snapshot 2 'b' of VDI 'disk' (vdi id ")
    assert told["base"].startswith("snapshot 1 'a' of VDI 'disk' (vdi id ")


@pytest.fixture
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in a place where it is later than in UTC."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("vienna")
def test_info_tells_the_time_of_a_snapshot_here_and_in_utc(command: Command, files: list[Path]) -> None:
    told = command("info", files[0]).out.decode()

    utc, here = re.search(r"created (\S{16})", told), re.search(r"taken +(\S+ \S+) CET\n", told)
    assert utc is not None
    assert here is not None
    assert datetime.fromisoformat(here[1]) == datetime.fromisoformat(utc[1]) + timedelta(hours=1)


def test_info_without_a_manifest_says_so(command: Command, files: list[Path]) -> None:
    Path(f"{files[0]}.manifest").unlink()

    assert b"manifest  none" in command("info", files[0]).out


def test_info_lists_records(command: Command, files: list[Path]) -> None:
    header, first, *_ = command("info", "--records", files[1]).out.decode().splitlines()

    assert header.split()[:3] == ["IDX", "OFFSET", "LENGTH"]
    assert first.split()[:3] == ["1", "0", "512"]


@pytest.mark.parametrize("options", [(), ("--records",)], ids=["summary", "records"])
def test_info_as_json_is_one_object(command: Command, files: list[Path], options: tuple[str, ...]) -> None:
    told = json.loads(command("info", "--json", *options, files[1]).out)

    assert (told["records"], told["manifest"]["base"]["tag"]) == (5, "a")
    if options:
        assert [record["idx"] for record in told["record_list"]] == [1, 2, 3, 5, 6]


def test_info_reads_from_a_pipe(files: list[Path]) -> None:
    process = start("info", "--json", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(files[1].read_bytes() + b"more", timeout=30)

    told = json.loads(out)
    assert (process.returncode, told["records"], told["trailing_bytes"]) == (0, 5, 4)


def test_info_of_a_damaged_file_names_the_offset(command: Command, files: list[Path]) -> None:
    flip(files[0], 5)

    outcome = command("info", files[0])

    assert outcome.code == 1
    assert "at offset 4: expected magic" in outcome.err


def test_verify_proves_a_chain(command: Command, files: list[Path]) -> None:
    outcome = command("verify", *files)

    assert outcome.code == 0
    full, increment, chain = outcome.out.decode().splitlines()
    assert full.startswith(f"{files[0]}: good, all data is as its manifest says: 5 records")
    assert increment.startswith(f"{files[1]}: good")
    assert chain == "chain: good, each file follows the one before it"


def test_verify_tells_each_problem_in_a_line(command: Command, files: list[Path]) -> None:
    for position in (100, 16 + 16 + OBJECT + 100):
        flip(files[0], position)

    outcome = command("verify", files[0])

    assert outcome.code == 1
    first, second, verdict = outcome.out.decode().splitlines()
    assert "the data of object 0 was changed" in first
    assert "the data of object 1 was changed" in second
    assert verdict.endswith("BAD, 2 problems")


def test_verify_as_json_is_one_object(command: Command, files: list[Path]) -> None:
    flip(files[0], 100)

    outcome = command("verify", "--json", *files)

    told = json.loads(outcome.out)
    assert (outcome.code, told["good"], told["against"]) == (1, False, None)
    assert [file["problems"]["count"] for file in told["files"]] == [1, 0]


def test_verify_without_a_manifest_says_what_is_not_proven(command: Command, files: list[Path]) -> None:
    Path(f"{files[0]}.manifest").unlink()

    outcome = command("verify", *files)

    assert outcome.code == 0
    full, increment, chain, proof = outcome.out.decode().splitlines()
    assert full.startswith(f"{files[0]}: structure only, without a manifest nothing proves its data: 5 records")
    assert increment.startswith(f"{files[1]}: good")
    assert chain == "chain: 1 of 1 links cannot be proven without manifests"
    assert proof == "not proved: 1 of 2 backups without a manifest, structure only"
    told = json.loads(command("verify", "--json", *files).out)
    assert (told["good"], told["proved"], [file["proved"] for file in told["files"]]) == (True, False, [False, True])


def test_verify_says_last_that_a_single_file_is_not_proved(command: Command, served: Served, files: list[Path]) -> None:
    Path(f"{files[0]}.manifest").unlink()

    alone = command("verify", files[0])
    compared = command(
        "verify", files[0], "--object-size", str(OBJECT), "--against", "disk", "-s", "a", "-p", served.port
    )

    for outcome in (alone, compared):
        assert outcome.code == 0
        last = outcome.out.decode().splitlines()[-1]
        assert last == "not proved: 1 of 1 backup without a manifest, structure only"


@pytest.mark.parametrize(
    "options",
    [
        ["--memory", "64M"],
        ["--in-flight", "2"],
        ["--connections", "2"],
        ["--timeout", "5"],
        ["-p", "7000"],
        ["-a", "localhost"],
        ["-s", "a"],
        ["--sample", "5%"],
        ["--seed", "1"],
        ["--assume-base"],
    ],
    ids=lambda options: options[0],
)
def test_verify_refuses_options_that_have_no_effect_without_a_vdi_to_compare_with(
    command: Command, files: list[Path], options: list[str]
) -> None:
    outcome = command("verify", *files, *options)

    assert outcome.code == 64
    assert "has no effect without --against: give that as well" in outcome.err
    assert outcome.out == b""


def test_verify_takes_the_address_of_the_environment_though_it_compares_nothing(
    command: Command, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCBACKUP_ADDRESS", "10.0.0.5")

    assert command("verify", *files).code == 0


def test_verify_fails_where_a_manifest_is_required_and_missing(command: Command, files: list[Path]) -> None:
    Path(f"{files[0]}.manifest").unlink()

    outcome = command("verify", "--require-manifest", *files)

    assert outcome.code == 1
    problem, bad, *_ = outcome.out.decode().splitlines()
    assert problem.startswith(f"{files[0]}: it has no manifest")
    assert bad == f"{files[0]}: BAD, 1 problem"


@pytest.mark.parametrize("verb", ["info", "verify", "restore", "export", "merge", "convert"])
def test_every_verb_proves_what_is_piped(served: Served, files: list[Path], tmp_path: Path, verb: str) -> None:
    manifest = Path(f"{files[0]}.manifest").rename(tmp_path / "elsewhere")
    target = tmp_path / "target"
    options = {
        "info": ["--json"],
        "verify": ["--json", "--require-manifest"],
        "restore": ["--to", "new", "-p", served.port],
        "export": ["--to", str(target)],
        "merge": ["--to", str(target)],
        "convert": ["--to", str(target), "--format", "dog"],
    }[verb]

    def run() -> tuple[int | None, bytes]:
        arguments: list[str | Path] = [verb, "-", "--manifest", manifest, *options]
        process = start(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(files[0].read_bytes(), timeout=60)
        return process.returncode, out + err

    assert run()[0] == 0
    target.unlink(missing_ok=True)
    Path(f"{target}.manifest").unlink(missing_ok=True)
    if verb == "restore":
        options[1] = "other"
    if verb != "info":  # which reads no data
        flip(files[0], 16 + 16 + 1000)
        code, said = run()
        assert code == 1
        assert b"the data of object 0 was changed" in said
        assert not target.exists()


@pytest.mark.parametrize("verb", ["verify", "restore", "export", "merge"])
@pytest.mark.parametrize("count", [1, 3])
def test_there_is_a_manifest_for_each_file_or_none(
    command: Command, files: list[Path], tmp_path: Path, verb: str, count: int
) -> None:
    target: list[str | Path] = [] if verb == "verify" else ["--to", tmp_path / "target"]

    outcome = command(verb, *files, *target, *["--manifest", f"{files[0]}.manifest"] * count)

    assert outcome.code == 64
    assert f"--manifest is given {count} times for 2 FILEs: give one for each" in outcome.err


@pytest.mark.parametrize("verb", ["info", "convert"])
def test_a_single_file_has_a_single_manifest(command: Command, files: list[Path], tmp_path: Path, verb: str) -> None:
    target: list[str | Path] = [] if verb == "info" else ["--to", tmp_path / "target", "--format", "dog"]

    assert command(verb, files[0], *target, *["--manifest", f"{files[0]}.manifest"] * 2).code == 64


def test_verify_quietly_prints_problems_alone(command: Command, files: list[Path]) -> None:
    assert command("verify", "-q", *files).out == b""


def test_verify_against_a_snapshot(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("verify", *files, "--against", "disk", "-s", "b", "-p", served.port)

    assert outcome.code == 0
    assert b"disk b: the same; compared" in outcome.out


@pytest.mark.parametrize("sample", ["100", "100%"])
def test_verify_audits_a_sample(command: Command, served: Served, files: list[Path], sample: str) -> None:
    outcome = command("verify", files[1], "--against", "disk", "-s", "b", "--sample", sample, "-p", served.port)

    assert outcome.code == 0
    assert b"audited 1 of 1 object without a record" in outcome.out


def test_verify_names_the_objects_that_differ(command: Command, served: Served, files: list[Path]) -> None:
    command("restore", files[0], "--to", "new", "-p", served.port)

    outcome = command("verify", *files, "--against", "new", "--assume-base", "-p", served.port)

    assert outcome.code == 1
    assert b"new differs in 5 objects: 1, 2, 3, 5, 6\n" in outcome.out


def test_verify_does_not_compare_what_is_damaged(command: Command, served: Served, files: list[Path]) -> None:
    flip(files[0], 100)

    outcome = command("verify", *files, "--against", "disk", "-s", "b", "-p", served.port)

    assert outcome.code == 1
    assert b"not compared with disk" in outcome.out


@pytest.mark.parametrize(
    "options",
    [
        ("-s", "b"),
        ("--sample", "5"),
        ("--against", "disk", "--sample", "0"),
        ("--against", "disk", "--sample", "many"),
        ("-", "-"),
        ("-", "--against", "disk"),
    ],
)
def test_verify_refuses_what_makes_no_sense(command: Command, files: list[Path], options: tuple[str, ...]) -> None:
    assert command("verify", files[0], *options).code == 64


def test_restore_makes_a_vdi_that_verifies(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", *files, "--to", "new", "-p", served.port)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.decode().startswith("new: 8.0 MiB\nwrote 7 objects, ")
    against = ("--against", "new", "--assume-base", "--sample", "100%", "-p", served.port)
    assert command("verify", *files, *against).code == 0


def test_restore_clones_a_snapshot(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", files[1], "--to", "new", "--base", "a", "-p", served.port)

    assert outcome.code == 0
    assert b"a clone of VDI 'disk' snapshot 1" in outcome.out
    assert command("verify", *files, "--against", "new", "--assume-base", "-p", served.port).code == 0


def test_restore_as_json_is_one_object(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", *files, "--to", "new", "--json", "-p", served.port)

    told = json.loads(outcome.out)
    assert (told["vdi"], told["size"], told["objects_done"], told["checked"]) == ("new", OBJECT * OBJECTS, 7, True)


def test_restore_to_a_taken_name_is_3(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", *files, "--to", "disk", "-p", served.port)

    assert outcome.code == 3
    assert "'disk' exists already" in outcome.err


def test_restore_on_a_missing_snapshot_is_5(command: Command, served: Served, files: list[Path]) -> None:
    outcome = command("restore", files[1], "--to", "new", "--base", "c", "-p", served.port)

    assert outcome.code == 5


def test_restore_of_a_missing_file_is_5(command: Command, served: Served, tmp_path: Path) -> None:
    assert command("restore", tmp_path / "none", "--to", "new", "-p", served.port).code == 5


def test_restore_of_an_increment_alone_says_what_it_goes_on(
    command: Command, served: Served, files: list[Path]
) -> None:
    outcome = command("restore", files[1], "--to", "new", "-p", served.port)

    assert outcome.code == 1
    assert "that snapshot with --base" in outcome.err


def test_restore_without_a_manifest_takes_sizes(command: Command, served: Served, files: list[Path]) -> None:
    for file in files:
        Path(f"{file}.manifest").unlink()

    outcome = command("restore", files[0], "--to", "new", *OPTIONS, "-p", served.port)

    assert outcome.code == 0
    assert b"not every file has a manifest" in outcome.out
    comparing = ("--object-size", str(OBJECT), "--against", "new", "-p", served.port)
    assert command("verify", files[0], *comparing).code == 0


def test_a_chain_with_a_manifest_missing_is_refused_by_every_verb(
    command: Command, served: Served, files: list[Path], tmp_path: Path
) -> None:
    Path(f"{files[1]}.manifest").unlink()
    message = f"{files[1]}: it has no manifest, so that nothing proves what it is of and what it follows; name the "

    verbs: list[list[str | Path]] = [
        ["restore", *files, "--to", "new", "-p", served.port],
        ["export", *files, "--to", tmp_path / "image"],
        ["merge", *files, "--to", tmp_path / "merged"],
        ["verify", *files, "--against", "disk", "-s", "b", "-p", served.port],
    ]
    for verb in verbs:
        outcome = command(*verb)
        assert (outcome.code, message in outcome.err) == (1, True), verb
    assert command("vdi", "list", "-p", served.port).out.count(b"new") == 0
    assert not (tmp_path / "image").exists()
    assert not (tmp_path / "merged").exists()


def test_restore_reads_from_a_pipe(command: Command, served: Served, files: list[Path]) -> None:
    process = start("restore", "-", "--to", "new", *OPTIONS, "-p", served.port, "-q", stdin=subprocess.PIPE)
    process.communicate(files[0].read_bytes(), timeout=30)

    assert process.returncode == 0
    assert command("verify", files[0], "--against", "new", "--assume-base", "-p", served.port).code == 0


def test_restore_with_a_base_vdi_alone_is_a_usage_error(command: Command, files: list[Path]) -> None:
    assert command("restore", *files, "--to", "new", "--base-vdi", "disk").code == 64


def test_a_compressed_file_is_read_as_the_advice_says(command: Command, files: list[Path]) -> None:
    packed = Path(f"{files[0]} packed.gz")
    packed.write_bytes(gzip.compress(files[0].read_bytes()))

    refused = command("info", packed)
    assert refused.code == 1
    assert "this is compressed with gzip, and has to be decompressed first" in refused.err
    advised = re.search("`(.* [|] asyncbackup) … -` reads it", refused.err)
    assert advised is not None
    line = f"{advised[1]} info -".replace("asyncbackup info", f"{shlex.join(PROGRAM)} info")
    ran = subprocess.run(["sh", "-c", line], capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"records   5" in ran.stdout

    assert b"compressed with gzip" in command("verify", packed).out
    with packed.open("rb") as piped:
        ran = subprocess.run([*PROGRAM, "info", "-"], stdin=piped, capture_output=True, check=False, timeout=60)
    assert b"put `gzip -dc |` before this command" in ran.stderr
