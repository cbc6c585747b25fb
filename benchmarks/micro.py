"""Counts the instructions of what a backup does most often: ``python -m benchmarks.micro [KERNEL...]``.

Times are noisy; instructions are nearly the same each time. ``perf`` counts them where the machine lets it, and else
``valgrind``. Without either, processor time is told. Each kernel runs in processes of its own, a number of times and
twice as often: the difference is the kernel's, and nothing of the start. This fails nothing: it reports.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from asyncbackup.cli.bench_report import draw
from asyncbackup.engine.compact import trim
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.plan import plan_difference
from asyncbackup.engine.reader import BackupReader
from asyncbackup.engine.record_writer import Fragment, RecordWriter
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.storage import FileSource, FileTarget, NullTarget, Target
from asyncbackup.wire.constants import HEADER_SIZE
from asyncbackup.wire.framing import MessageReader

_OBJECT: Final = 4 << 20
_SECTOR: Final = 512
_SHORT_RECORDS: Final = 4096
_OWNERS: Final = 1 << 20
"""Of a VDI of 4 TiB."""

Kernel = Callable[[], object]


class Measured(NamedTuple):
    """A kernel: what one call of it does so many of, and how often to call it."""

    title: str
    each: int
    calls: int
    make: Callable[[], Iterator[Kernel]]


def frame() -> Iterator[Kernel]:
    """Receive answers that bring 64 KiB each, in pieces of 16 KiB."""
    into = memoryview(bytearray(64 << 10))
    reader = MessageReader(lambda _: (len(into), into), lambda: None)
    stream = bytes(HEADER_SIZE + len(into))

    def receive() -> None:
        left = len(stream)
        while left:
            count = min(len(reader.get_buffer()), left, 16 << 10)
            reader.advance(count)
            left -= count

    yield receive


def plan() -> Iterator[Kernel]:
    """Compare two tables of owners, of which a thousandth differs, and go through the pairs."""
    to = np.full(_OWNERS, 7, np.uint32)
    base = to.copy()
    base[::1000] = 5
    yield lambda: list(plan_difference(to, base))


def compare() -> Iterator[Kernel]:
    """Compare two sides of an object that differ in a sector in its middle."""
    to, base = bytearray(_OBJECT), bytearray(_OBJECT)
    to[_OBJECT // 2] = 1
    yield lambda: trim(memoryview(to), memoryview(base))


def digest() -> Iterator[Kernel]:
    """Take the digest of an object."""
    content = memoryview(bytes(_OBJECT))
    yield lambda: Digests(with_base=False).data.update(content)


async def write_records(target: Target) -> None:
    """Write many records of a sector each."""
    writer = RecordWriter(target, Dialect.DOG)
    await writer.start()
    data = [memoryview(bytes(_SECTOR))]
    for idx in range(_SHORT_RECORDS):
        await writer.append([Fragment(RecordHeader(idx, 0, _SECTOR), data)])
    await writer.finish()


def write() -> Iterator[Kernel]:
    """Write short records to nowhere."""
    yield lambda: asyncio.run(write_records(NullTarget()))


def read() -> Iterator[Kernel]:
    """Read short records from a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backup"

        async def make() -> None:
            async with FileTarget(file) as target:
                await write_records(target)

        async def read_all() -> None:
            async with FileSource(file) as source:
                reader = BackupReader(source, dialect=Dialect.DOG)
                await reader.begin()
                assert len([None async for _ in reader.records()]) == _SHORT_RECORDS

        asyncio.run(make())
        yield lambda: asyncio.run(read_all())


KERNELS: Final = {
    "framing": Measured("an answer of 64 KiB", 1, 3000, frame),
    "plan": Measured("a planned pair, of 4 TiB with 1,049 of them", 1049, 6, plan),
    "compare": Measured("an object compared", 1, 20, compare),
    "record-writer": Measured("a record of a sector written", _SHORT_RECORDS, 2, write),
    "reader": Measured("a record of a sector read", _SHORT_RECORDS, 2, read),
    "digest": Measured("an object digested", 1, 20, digest),
}


class Counter(NamedTuple):
    """A way to count what a process does."""

    unit: str
    prefix: list[str]
    pattern: re.Pattern[str] | None
    """Of the count, in what is printed to standard error; None: the kernel prints its processor time."""


PERF: Final = Counter("instructions", ["perf", "stat", "-e", "instructions:u"], re.compile(r"([\d,]+)\s+instructions"))
VALGRIND: Final = Counter(
    "instructions",
    ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"],
    re.compile(r"I\s+refs:\s+([\d,]+)"),
)
CLOCK: Final = Counter("ns of processor time, which is noisy", [], None)


def find_counter() -> Counter:
    """Choose the best way that works here."""
    for counter in (PERF, VALGRIND):
        if shutil.which(counter.prefix[0]) and counter.pattern is not None:
            tried = subprocess.run([*counter.prefix, "true"], capture_output=True, text=True, check=False, timeout=60)
            if counter.pattern.search(tried.stderr):
                return counter
    return CLOCK


def count(counter: Counter, name: str, calls: int) -> int:
    """Run a kernel so often in a process of its own; give what is counted of all of that."""
    command = [*counter.prefix, sys.executable, "-m", "benchmarks.micro", "--run", name, str(calls)]
    # The same hashes each time, and no threads that nobody uses.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=600)
    if counter.pattern is None:
        return int(done.stdout)
    found = counter.pattern.search(done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def run(name: str, calls: int) -> None:
    """Run a kernel so often, and print the processor time of that in ns."""
    with contextmanager(KERNELS[name].make)() as kernel:
        began_ns = time.process_time_ns()
        for _ in itertools.repeat(None, calls):
            kernel()
        print(time.process_time_ns() - began_ns)


def main() -> None:
    """Print a row for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"of {', '.join(KERNELS)}; all")
    parser.add_argument("--run", nargs=2, metavar=("KERNEL", "CALLS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run[0], int(arguments.run[1]))
        return
    if unknown := set(arguments.kernels) - KERNELS.keys():
        parser.error(f"no kernel named {', '.join(unknown)}")
    counter = find_counter()
    rows = []
    for name in arguments.kernels or KERNELS:
        kernel = KERNELS[name]
        once, twice = (count(counter, name, calls) for calls in (kernel.calls, 2 * kernel.calls))
        rows.append((name, f"{(twice - once) / kernel.calls / kernel.each:,.0f}", kernel.title))
    print("\n".join(draw(("", counter.unit, "for"), rows)))


if __name__ == "__main__":
    main()
