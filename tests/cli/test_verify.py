"""Verify as a user meets it: its report, exit codes, and what it is compared with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import Command, Served
from tests.damage import flip
from tests.disks import OBJECT


def test_verify_proves_a_chain(command: Command, backups: list[Path]) -> None:
    outcome = command("verify", *backups)

    assert outcome.code == 0
    full, increment, chain = outcome.out.decode().splitlines()
    assert full.startswith(f"{backups[0]}: good, all data is as its manifest says: 5 records")
    assert increment.startswith(f"{backups[1]}: good")
    assert chain == "chain: good, each file follows the one before it"


def test_verify_tells_each_problem_in_a_line(command: Command, backups: list[Path]) -> None:
    for position in (100, 16 + 16 + OBJECT + 100):
        flip(backups[0], position)

    outcome = command("verify", backups[0])

    assert outcome.code == 1
    first, second, verdict = outcome.out.decode().splitlines()
    assert "the data of object 0 was changed" in first
    assert "the data of object 1 was changed" in second
    assert verdict.endswith("BAD, 2 problems")


def test_verify_as_json_is_one_object(command: Command, backups: list[Path]) -> None:
    flip(backups[0], 100)

    outcome = command("verify", "--json", *backups)

    told = json.loads(outcome.out)
    assert (outcome.code, told["good"], told["against"]) == (1, False, None)
    assert [file["problems"]["count"] for file in told["files"]] == [1, 0]


def test_verify_without_a_manifest_says_what_is_not_proven(command: Command, backups: list[Path]) -> None:
    Path(f"{backups[0]}.manifest").unlink()

    outcome = command("verify", *backups)

    assert outcome.code == 0
    full, increment, chain, proof = outcome.out.decode().splitlines()
    assert full.startswith(f"{backups[0]}: structure only, without a manifest nothing proves its data: 5 records")
    assert increment.startswith(f"{backups[1]}: good")
    assert chain == "chain: 1 of 1 links cannot be proven without manifests"
    assert proof == "not proved: 1 of 2 backups without a manifest, structure only"
    told = json.loads(command("verify", "--json", *backups).out)
    assert (told["good"], told["proved"], [file["proved"] for file in told["files"]]) == (True, False, [False, True])


def test_verify_says_last_that_a_single_file_is_not_proved(
    command: Command, served: Served, backups: list[Path]
) -> None:
    Path(f"{backups[0]}.manifest").unlink()

    alone = command("verify", backups[0])
    compared = command(
        "verify", backups[0], "--object-size", str(OBJECT), "--against", "disk", "-s", "a", "-p", served.port
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
    command: Command, backups: list[Path], options: list[str]
) -> None:
    outcome = command("verify", *backups, *options)

    assert outcome.code == 64
    assert "has no effect without --against: give that as well" in outcome.err
    assert outcome.out == b""


def test_verify_refuses_a_seed_without_a_sample(command: Command, backups: list[Path]) -> None:
    outcome = command("verify", *backups, "--against", "disk", "--seed", "1")

    assert outcome.code == 64
    assert "--seed has no effect without --sample: give that as well" in outcome.err


def test_verify_takes_the_address_of_the_environment_though_it_compares_nothing(
    command: Command, backups: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCBACKUP_ADDRESS", "10.0.0.5")

    assert command("verify", *backups).code == 0


def test_verify_fails_where_a_manifest_is_required_and_missing(command: Command, backups: list[Path]) -> None:
    Path(f"{backups[0]}.manifest").unlink()

    outcome = command("verify", "--require-manifest", *backups)

    assert outcome.code == 1
    problem, bad, *_ = outcome.out.decode().splitlines()
    assert problem.startswith(f"{backups[0]}: it has no manifest")
    assert bad == f"{backups[0]}: BAD, 1 problem"


def test_verify_quietly_prints_problems_alone(command: Command, backups: list[Path]) -> None:
    assert command("verify", "-q", *backups).out == b""


def test_verify_against_a_snapshot(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("verify", *backups, "--against", "disk", "-s", "b", "-p", served.port)

    assert outcome.code == 0
    assert b"disk b: the same; compared" in outcome.out


@pytest.mark.parametrize("sample", ["100", "100%"])
def test_verify_audits_a_sample(command: Command, served: Served, backups: list[Path], sample: str) -> None:
    outcome = command("verify", backups[1], "--against", "disk", "-s", "b", "--sample", sample, "-p", served.port)

    assert outcome.code == 0
    assert b"audited 1 of 1 object without a record" in outcome.out


def test_verify_names_the_objects_that_differ(command: Command, served: Served, backups: list[Path]) -> None:
    command("restore", backups[0], "--to", "new", "-p", served.port)

    outcome = command("verify", *backups, "--against", "new", "--assume-base", "-p", served.port)

    assert outcome.code == 1
    assert b"new differs in 5 objects: 1, 2, 3, 5, 6\n" in outcome.out


def test_verify_does_not_compare_what_is_damaged(command: Command, served: Served, backups: list[Path]) -> None:
    flip(backups[0], 100)

    outcome = command("verify", *backups, "--against", "disk", "-s", "b", "-p", served.port)

    assert outcome.code == 1
    assert b"not compared with disk" in outcome.out


@pytest.mark.slow
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
def test_verify_refuses_what_makes_no_sense(command: Command, backups: list[Path], options: tuple[str, ...]) -> None:
    assert command("verify", backups[0], *options).code == 64
