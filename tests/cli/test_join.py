"""Pieces of a backup, and the joined backup, as a user meets them: output, exit codes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncbackup.storage.publication import manifest_path
from tests.cli.command import Command, Served, piped
from tests.folders import left_in
from tests.pieces import read_both


@pytest.fixture
def pieces(command: Command, served: Served, tmp_path: Path) -> list[Path]:
    """The three pieces of a backup."""
    made = [tmp_path / f"vm.piece{number}" for number in (1, 2, 3)]
    for number, piece in enumerate(made, 1):
        outcome = command("backup", "disk", piece, "-s", "b", "--shard", f"{number}/3", "-p", served.port)
        assert outcome.code == 0
        assert f"ok: disk b, piece {number} of 3: " in outcome.out.decode()
    return made


def test_joined_pieces_are_what_one_run_makes(
    command: Command, served: Served, pieces: list[Path], tmp_path: Path
) -> None:
    command("backup", "disk", tmp_path / "whole", "-s", "b", "-p", served.port)

    outcome = command("join", *sorted(tmp_path.glob("vm.piece*"), reverse=True), "--to", tmp_path / "joined")

    assert outcome.code == 0
    assert outcome.out.decode().endswith(f"\nok: {tmp_path / 'joined'}: 7 objects from 3 pieces\n")
    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")
    assert all(piece.exists() for piece in pieces)


def test_join_writes_to_a_pipe(command: Command, pieces: list[Path], tmp_path: Path) -> None:
    command("join", *pieces, "--to", tmp_path / "joined")

    ended = piped("join", *pieces, "--to", "-")

    assert ended.returncode == 0
    assert ended.stdout == (tmp_path / "joined").read_bytes()
    assert b"ok: standard output: 7 objects from 3 pieces, without a manifest" in ended.stderr


def test_join_as_json(command: Command, pieces: list[Path], tmp_path: Path) -> None:
    values = json.loads(command("join", *pieces, "--to", tmp_path / "joined", "--json", "--no-manifest").out)

    assert {name: values[name] for name in ("pieces", "dialect", "has_manifest", "records", "missing")} == {
        "pieces": 3,
        "dialect": "collie",
        "has_manifest": False,
        "records": 7,
        "missing": [],
    }
    assert not manifest_path(tmp_path / "joined").exists()


def test_join_names_what_is_missing_and_how_it_is_made(command: Command, pieces: list[Path], tmp_path: Path) -> None:
    outcome = command("join", pieces[0], pieces[2], "--to", tmp_path / "joined")

    assert outcome.code == 1
    assert "piece 2 of 3 is missing; name all of them; `asyncbackup backup --shard 2/3` makes it" in outcome.err
    assert "joined" not in left_in(tmp_path)


def test_join_replaces_a_file_only_by_force(command: Command, pieces: list[Path], tmp_path: Path) -> None:
    (tmp_path / "joined").write_bytes(b"old")

    assert command("join", *pieces, "--to", tmp_path / "joined").code == 3
    assert command("join", *pieces, "--to", tmp_path / "joined", "--force", "-q").code == 0


def test_join_takes_no_standard_input(command: Command, tmp_path: Path) -> None:
    outcome = command("join", "-", "--to", tmp_path / "joined")

    assert outcome.code == 64
    assert "a piece is a file" in outcome.err


@pytest.mark.parametrize(
    "line",
    [
        ("restore", "PIECE", "--to", "new", "-p", "PORT"),
        ("export", "PIECE", "--to", "out"),
        ("merge", "PIECE", "--to", "out"),
        ("convert", "PIECE", "--format", "dog", "--to", "out"),
        ("verify", "OTHER", "PIECE", "--against", "disk", "-p", "PORT"),
    ],
    ids=lambda line: str(line[0]),
)
def test_readers_of_whole_backups_name_the_piece_and_join(
    command: Command, served: Served, pieces: list[Path], line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pieces[0].parent)
    names = {"PIECE": pieces[1].name, "OTHER": pieces[0].name, "PORT": served.port}

    outcome = command(*(names.get(word, word) for word in line))

    assert outcome.code == 1
    assert " of 3 of a backup, not a whole one; `asyncbackup join` makes the backup of all its pieces" in outcome.err
    assert "out" not in left_in(pieces[0].parent)


def test_info_shows_which_piece_it_is(command: Command, pieces: list[Path]) -> None:
    text = command("info", pieces[1], "--records").out.decode()
    values = json.loads(command("info", pieces[1], "--json").out)

    assert "piece     2 of 3, objects 3 to 4: `asyncbackup join` makes the backup of all its pieces\n" in text
    assert "records   2\n" in text
    assert values["manifest"]["piece"]["number"] == 2


def test_verify_proves_pieces_and_speaks_of_no_chain(command: Command, pieces: list[Path]) -> None:
    outcome = command("verify", *pieces)

    assert outcome.code == 0
    assert f"{pieces[1]}, piece 2 of 3: good, all data is as its manifest says" in outcome.out.decode()
    assert "chain" not in outcome.out.decode()
    data = bytearray(pieces[1].read_bytes())
    data[100] ^= 1
    pieces[1].write_bytes(data)
    assert command("verify", *pieces).code == 1


def test_a_piece_that_was_interrupted_is_not_begun_anew_for_another_share(
    command: Command, served: Served, tmp_path: Path
) -> None:
    command("backup", "disk", tmp_path / "piece", "-s", "b", "--shard", "1/3", "-p", served.port)
    left = {".partial": "", ".partial.manifest": ".manifest"}
    for hidden, suffix in left.items():
        (tmp_path / f"piece{suffix}").rename(tmp_path / f".piece{hidden}")

    outcome = command("backup", "disk", tmp_path / "piece", "-s", "b", "--shard", "2/3", "--resume", "-p", served.port)

    assert outcome.code == 1
    assert "piece 1 of 3, objects 0 to 2" in outcome.err


def test_dry_run_tells_what_the_piece_would_read(command: Command, served: Served, tmp_path: Path) -> None:
    outcome = command("backup", "disk", tmp_path / "p", "-s", "b", "--shard", "1/7", "--dry-run", "-p", served.port)

    assert "would read at most 1.0 MiB of 1 object" in outcome.out.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--live",), "a working VDI changes"),
        (("-s", "b", "--also", "other"), "leave --also out"),
        (("-s", "b", "--workers", "2"), "either --shard or --workers"),
        (("-s", "b", "--no-manifest"), "leave --no-manifest out"),
        (("-s", "b", "--shard", "0/3"), "expected a share such as 3/8"),
        (("-s", "b", "--shard", "4/3"), "expected a share such as 3/8"),
        (("-s", "b", "--shard", "1/4097"), "expected a share such as 3/8"),
        (("-s", "b", "--shard", "a/b"), "expected a share such as 3/8, of at most 4096, got 'a/b'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_go_with_a_piece_is_refused_by_name(
    command: Command, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = command("backup", "disk", tmp_path / "piece", "--shard", "1/3", *options)

    assert outcome.code == 64
    assert message in outcome.err
    assert left_in(tmp_path) == []


def test_a_piece_in_a_pipe_needs_a_place_for_its_manifest(command: Command, served: Served, tmp_path: Path) -> None:
    refused = command("backup", "disk", "-", "-s", "b", "--shard", "1/1")
    with_manifest = ("--manifest", tmp_path / "piece.manifest", "--format", "collie", "-p", served.port)

    ended = piped("backup", "disk", "-", "-s", "b", "--shard", "1/1", *with_manifest)

    assert (refused.code, ended.returncode) == (64, 0)
    assert "write one with --manifest" in refused.err
    (tmp_path / "piece").write_bytes(ended.stdout)
    assert command("join", tmp_path / "piece", "--to", tmp_path / "joined").code == 0
    assert command("verify", tmp_path / "joined", "--require-manifest").code == 0


def test_compressed_pieces_may_be_of_either_format(command: Command, served: Served, tmp_path: Path) -> None:
    line = ("backup", "disk", "-s", "b", "--format", "collie", "-p", served.port)
    command(*line, tmp_path / "whole")

    made = [command(*line, tmp_path / f"vm{n}", "--shard", f"{n}/2", "--zstd").code for n in (1, 2)]
    outcome = command("join", tmp_path / "vm1", tmp_path / "vm2", "--to", tmp_path / "joined")

    assert (made, outcome.code) == ([0, 0], 0)
    assert read_both(tmp_path / "joined") == read_both(tmp_path / "whole")


def test_shares_of_verify_prove_all_together_and_none_alone(command: Command, backups: list[Path]) -> None:
    shares = [command("verify", *backups, "--shard", f"{number}/3") for number in (1, 2, 3)]
    values = [json.loads(command("verify", *backups, "--shard", f"{n}/3", "--json").out) for n in (1, 2, 3)]

    assert [share.code for share in shares] == [0, 0, 0]
    assert shares[1].out.decode().endswith("share 2/3 is proved: all 3 of them together prove all data\n")
    assert [value["proved"] for value in values] == [False] * 3
    for place in range(len(backups)):
        found = [value["files"][place] for value in values]
        assert sum(file["records_digested"] for file in found) == found[0]["records"]
        assert sum(file["bytes_digested"] for file in found) == found[0]["data_bytes"]


def test_shares_of_what_goes_through_a_pipe_are_the_same(command: Command, backups: list[Path]) -> None:
    line = ("--manifest", manifest_path(backups[0]), "--json", "--shard", "2/3")

    ended = piped("verify", "-", *line, data=backups[0].read_bytes())

    (found,), (expected,) = (
        json.loads(out)["files"]
        for out in (ended.stdout, command("verify", backups[0], "--json", "--shard", "2/3").out)
    )
    assert found["records_digested"] == expected["records_digested"] > 0


def test_one_share_of_verify_finds_what_was_changed(command: Command, backups: list[Path]) -> None:
    data = bytearray(backups[0].read_bytes())
    data[len(data) // 2] ^= 1
    backups[0].write_bytes(data)

    codes = [command("verify", backups[0], "--shard", f"{number}/4").code for number in (1, 2, 3, 4)]

    assert sorted(codes) == [0, 0, 0, 1]


def test_shares_of_a_comparison_compare_each_object_once(command: Command, served: Served, backups: list[Path]) -> None:
    line = ("verify", *backups, "--against", "disk", "-p", served.port, "--json")

    whole = json.loads(command(*line).out)["against"]
    shares = [json.loads(command(*line, "--shard", f"{number}/3").out)["against"] for number in (1, 2, 3)]

    assert all(share["good"] and 0 < share["objects_done"] < whole["objects_done"] for share in shares)
    for name in ("objects_planned", "objects_done", "bytes_compared"):
        assert sum(share[name] for share in shares) == whole[name]


def test_a_share_of_a_comparison_says_which_one_it_is(command: Command, served: Served, backups: list[Path]) -> None:
    outcome = command("verify", *backups, "--against", "disk", "--shard", "2/3", "-p", served.port)

    assert "disk b, share 2/3: the same; compared " in outcome.out.decode()


def test_shares_of_a_sample_need_one_seed(command: Command, backups: list[Path]) -> None:
    outcome = command("verify", *backups, "--shard", "1/2", "--against", "disk", "--sample", "5")

    assert outcome.code == 64
    assert "need the same --seed" in outcome.err
