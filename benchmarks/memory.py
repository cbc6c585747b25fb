"""Measures how much memory the verbs take with each layer and place: ``python -m benchmarks.memory``.

The figure is the most that the process, or one that it started, had resident at a time. The limit is 64 MiB and what
--memory says: 128 MiB for verify, which has no such option without a cluster.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anyio

from asyncbackup.bench.cases import Run
from asyncbackup.bench.fill import NEW
from asyncbackup.bench.measuring import VDI
from asyncbackup.bench.serving import Serving
from asyncbackup.bench.statistics import spread
from asyncbackup.cli import bench_report
from benchmarks import contest, mixed, s3
from benchmarks.contest import PROGRAM

_MIB = 1 << 20
_BESIDE = 64
"""MiB that the limit is above --memory."""
_DEFAULT = "128M"
"""Of --memory."""
_RESTORED = "restored"
_HEADER = ("", "--memory", "seconds", "peak MiB", "limit MiB", "")


class Layers(NamedTuple):
    """Layers around a backup, and the options to write and to read them."""

    name: str
    writing: list[str]
    reading: list[str]


async def main(arguments: argparse.Namespace) -> None:
    """Run them all, and print a table."""
    contest.require(modules=["moto", "obstore", "pyrage"])
    contest.tell_load()
    rows = []
    async with mixed.serving(arguments) as served, s3.serving() as store:
        for layers in _make_layers(served.folder):
            for place, file in ("file", str(served.folder / "kept")), ("S3", store.url("kept")):
                for memory in arguments.memory:  # in MiB
                    commands = _commands(served, layers, file, memory)
                    if memory != arguments.memory[0]:
                        del commands["verify"]  # It has been seen: it takes no --memory.
                    runs: dict[str, list[Run]] = {verb: [] for verb in commands}
                    for _ in range(arguments.rounds):
                        for verb, command in commands.items():
                            runs[verb].append(await contest.cost(store.leading(command)))
                        await contest.remove(served, _RESTORED)
                    rows += [
                        _row(f"{verb}, {layers.name}, {place}", commands[verb], theirs) for verb, theirs in runs.items()
                    ]
    print("\n".join(bench_report.draw(_HEADER, rows)))
    contest.tell_load()


def _make_layers(folder: Path) -> list[Layers]:
    """Give each combination of layers. The key to read them is written into ``folder``."""
    from pyrage import x25519  # noqa: PLC0415 - an extra

    key, file = x25519.Identity.generate(), folder / "identity"
    file.write_text(f"{key}\n")
    zstd, encrypt, identity = ["--zstd"], ["--encrypt", str(key.to_public())], ["--identity", str(file)]
    return [
        Layers("plain", [], []),
        Layers("zstd", zstd, []),
        Layers("age", encrypt, identity),
        Layers("zstd in age", zstd + encrypt, identity),
    ]


def _commands(served: Serving, layers: Layers, file: str, memory: int) -> dict[str, list[str]]:
    """Give the command of each verb. Each needs what the one before made."""
    place, options = contest.at(served), ["-q", "--memory", f"{memory}M"]
    return {
        "backup": [*PROGRAM, "backup", *options, "--force", *layers.writing, *place, "-s", NEW, VDI, file],
        "verify": [*PROGRAM, "verify", "-q", *layers.reading, file],
        "restore": [*PROGRAM, "restore", *options, *layers.reading, *place, "--to", _RESTORED, file],
    }


def _row(name: str, command: Sequence[str], runs: Sequence[Run]) -> tuple[str, ...]:
    peak = spread([run.peak_bytes / _MIB for run in runs])
    given = next((word for word in command if re.fullmatch(r"\d+M", word)), None)
    limit = int((given or _DEFAULT)[:-1]) + _BESIDE
    return (
        name,
        given or "",
        bench_report.spread(spread([run.wall_s for run in runs])),
        f"{peak.median:.0f} ({peak.least:.0f}-{peak.most:.0f})",
        f"{limit}",
        "above" if peak.most > limit else "",
    )


def parser() -> argparse.ArgumentParser:
    """Make the parser of its arguments."""
    made = contest.plain_parser_of(__doc__, 256)
    made.set_defaults(rounds=1)
    made.add_argument("--memory", type=int, nargs="+", default=[32, 128], help="MiB for --memory (32 and 128)")
    return made


if __name__ == "__main__":
    anyio.run(main, parser().parse_args())
