"""Measures ``backup --zstd`` and ``verify`` against ``zstd`` itself: ``python -m benchmarks.compression``.

A third of the content is text, a third zeros, a third random. All of them compress the same bytes at level 3, to a file
that is flushed; what ours made is then decompressed by ``zstd``, and compared with the plain backup. The layer alone
compresses what is in memory, in this process, and its peak is that of all of it.
"""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial
from pathlib import Path

import anyio

from asyncbackup.bench.cases import Run
from asyncbackup.bench.fill import NEW
from asyncbackup.bench.measure import run
from asyncbackup.bench.measuring import VDI
from asyncbackup.bench.serving import Serving
from asyncbackup.storage import Layers, open_target
from benchmarks import contest, mixed
from benchmarks.contest import PROGRAM, Contestant

ONE, TWO, ZSTD = "backup --zstd --threads 1", "backup --zstd --threads 2", "zstd -3 -T1"
LAYER, LAYER_TWO = "the layer alone, one thread", "the layer alone, two threads"
VERIFY, TEST = "verify", "zstd -t"
_FLUSHED = 'zstd -3 -T1 -q "$0" -o "$1" && sync "$1"'

_STEP = 4 << 20
"""Bytes that are handed over at a time: an object."""


async def main(arguments: argparse.Namespace) -> None:
    """Run them all, and print a table."""
    contest.require(commands=["zstd"])
    contest.tell_load()
    async with mixed.serving(arguments) as served:
        names = ("plain", "one.zst", "two.zst", "zstd.zst", "layer.zst", "layer-two.zst")
        plain, *compressed = (served.folder / name for name in names)
        await contest.prepare(*_backup(served), str(plain))
        runs = await contest.contest(_contestants(served, plain, compressed), arguments.rounds)
        for file in compressed:
            restored = served.folder / "restored"
            await run(["zstd", "-d", "-q", "-f", str(file), "-o", str(restored)], contest.LIMIT_S)
            contest.require_same(plain, restored)
        size, smaller = plain.stat().st_size, [file.stat().st_size for file in compressed]
    print(
        f"a backup of {size / 1e9:.3f} GB; ours are {smaller[0] / size:.1%} of it, that of zstd {smaller[2] / size:.1%}"
    )
    contest.tell(runs, size, pairs={ONE: ZSTD, TWO: ZSTD, LAYER: ZSTD, LAYER_TWO: ZSTD, VERIFY: TEST})
    contest.tell_load()


def _backup(served: Serving) -> list[str]:
    # The format of compressed ones.
    return ["backup", "-q", "--format", "dog", *contest.at(served), "-s", NEW, VDI]


def _contestants(served: Serving, plain: Path, compressed: list[Path]) -> dict[str, Contestant]:
    """Make what runs each of them once."""
    one, two, theirs, layer, layer_two = compressed
    kept = served.folder / "kept.zst"

    async def compress(target: Path, *command: str) -> Run:
        contest.clear(target)
        return await contest.cost(command)

    def ours(threads: int, target: Path) -> Contestant:
        options = ["--zstd=3", "--threads", str(threads)]
        return partial(compress, target, *PROGRAM, *_backup(served), *options, str(target))

    async def read(*command: str) -> Run:
        if not kept.exists():
            await contest.prepare(*_backup(served), "--zstd=3", str(kept))
        return await contest.cost([*command, str(kept)])

    return {
        ONE: ours(1, one),
        TWO: ours(2, two),
        ZSTD: partial(compress, theirs, "sh", "-c", _FLUSHED, str(plain), str(theirs)),
        LAYER: partial(_compress_alone, plain, layer, 1),
        LAYER_TWO: partial(_compress_alone, plain, layer_two, 2),
        VERIFY: partial(read, *PROGRAM, "verify", "-q"),
        TEST: partial(read, "zstd", "-q", "-t"),
    }


async def _compress_alone(plain: Path, target: Path, threads: int) -> Run:
    """Compress a file as a backup is compressed, without a cluster and without the start of a process."""
    content = memoryview(plain.read_bytes())  # noqa: ASYNC240 - nothing else runs
    contest.clear(target)
    began, began_cpu = time.perf_counter(), time.process_time()
    async with open_target(str(target), with_manifest=False, layers=Layers(3, threads=threads)) as opened:
        for start in range(0, len(content), _STEP):
            await opened.data.append([content[start : start + _STEP]])
        await opened.data.complete()
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    anyio.run(main, contest.plain_parser_of(__doc__, 256).parse_args())
