from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from asyncbackup.bench.measure import measure, run
from asyncbackup.errors import ProgramFailed

pytestmark = pytest.mark.slow


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


async def test_the_cost_is_that_of_the_program_and_not_of_who_measures(tmp_path: Path) -> None:
    small = await measure(python("print('said')"), tmp_path / "out", 30)
    large = await measure(python("b'x' * (64 << 20)"), tmp_path / "out", 30)

    assert 0 < small.cpu_s <= small.wall_s
    assert small.peak_bytes < 24 << 20, "this process has more"
    assert large.peak_bytes - small.peak_bytes > 60 << 20


async def test_standard_output_goes_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("something older and longer")

    await measure(python("print('said')"), tmp_path / "out", 30)

    assert (tmp_path / "out").read_text() == "said\n"


async def test_a_failure_says_what_the_program_said_last(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="ended with 7: the reason"):
        await measure(
            python("import sys; print('why\\nthe reason', file=sys.stderr); sys.exit(7)"), tmp_path / "out", 30
        )


async def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    with pytest.raises(ProgramFailed, match="did not end within 1 s"):
        await measure(python(code), tmp_path / "out", 1)

    await assert_gone(int((tmp_path / "pid").read_text()))


async def test_a_cancellation_ends_the_program(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = f"import os, time; open({str(fifo)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    async with anyio.create_task_group() as group:
        group.start_soon(measure, python(code), tmp_path / "out", 60)
        pid = int(await anyio.to_thread.run_sync(fifo.read_text))
        group.cancel_scope.cancel()

    await assert_gone(pid)


async def test_what_is_run_without_measuring_gives_its_output() -> None:
    assert await run(python("print('said')")) == b"said\n"


async def assert_gone(pid: int) -> None:
    """Wait until a killed process that is not our child is gone."""
    with anyio.fail_after(10):
        while await anyio.Path(f"/proc/{pid}/stat").exists():
            if (await anyio.Path(f"/proc/{pid}/stat").read_text()).rpartition(")")[2].split()[0] == "Z":
                return
            await anyio.lowlevel.checkpoint()
