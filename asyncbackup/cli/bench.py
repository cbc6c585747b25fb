"""``asyncbackup bench``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from asyncbackup.bench import machine, programs
from asyncbackup.bench.cases import Results, Situation
from asyncbackup.bench.job import Job
from asyncbackup.bench.measuring import LocalOptions, Step, Steps, measure_local
from asyncbackup.bench.programs import REFERENCES
from asyncbackup.bench.running import Choice, RunningOptions, choose, measure_running
from asyncbackup.bench.serving import is_real
from asyncbackup.bench.workloads import WORKLOADS
from asyncbackup.cli import text
from asyncbackup.cli.bench_report import advice_line, case_lines, outcome_line
from asyncbackup.cli.main import CONTEXT, Verb
from asyncbackup.cli.options import (
    PathName,
    WholeNumber,
    cluster_options,
    find_given,
    quiet_option,
    rate_option,
    snapshot_name,
)
from asyncbackup.cli.output import is_terminal, say
from asyncbackup.cli.running import run_async
from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.errors import ProgramMissing, TargetUnusable
from asyncbackup.verbs.backup import estimate

_MOST_DELAY_MS: Final = 10_000.0
_OF_LOCAL: Final = ("copies", "objects", "workloads", "delays_ms")
_OF_RUNNING: Final = ("address", "port", "vdi", "snapshot", "base", "rate")


def _delays(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[float, ...]:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?(,[0-9]{1,5}(\.[0-9]{1,6})?)*", value):
        raise click.BadParameter(f"expected milliseconds with commas between them, such as 0,2,20, got '{value:.60}'")
    delays = tuple(map(float, value.split(",")))
    if max(delays) > _MOST_DELAY_MS:
        raise click.BadParameter(f"expected at most {_MOST_DELAY_MS:.0f} ms")
    return tuple(dict.fromkeys(delays))


@click.command(
    "bench",
    cls=Verb,
    context_settings=CONTEXT,
    examples=[
        "asyncbackup bench -a sheep1 --vdi vm1 -s tuesday -F monday",
        "asyncbackup bench --local 1 --workload sector --against dog",
    ],
)
@cluster_options
@click.option(
    "--vdi", metavar="VDI", help="Read this VDI of a running cluster.  [default: one with a new increment of some GiB]"
)
@click.option(
    "-s",
    "--snapshot",
    metavar="SNAPSHOT",
    callback=snapshot_name,
    help="Read this snapshot of VDI: its tag, or its id.",
)
@click.option(
    "-F",
    "--from",
    "--base",
    "base",
    metavar="SNAPSHOT",
    callback=snapshot_name,
    help="Read what changed since this older snapshot of VDI.",
)
@rate_option
@click.option(
    "--local",
    "nodes",
    metavar="N",
    type=WholeNumber(1, 16),
    help="Measure a cluster of N nodes for the occasion, on this machine: of real `sheep` if that is on PATH, else "
    "the embedded server.",
)
@click.option(
    "--copies",
    metavar="N",
    type=WholeNumber(1, 16),
    help="Let that cluster keep each object on so many nodes.  [default: 2, or 1 where there is one node]",
)
@click.option(
    "--objects",
    metavar="COUNT",
    type=WholeNumber(4, 1 << 20),
    default=256,
    show_default=True,
    help="Let its VDIs have as much data as so many objects of 4 MiB.",
)
@click.option(
    "--folder",
    type=PathName(path_type=Path, file_okay=False),
    help="Put stores and backups into a new folder in this one. It goes at the end.  [default: in the temporary files]",
)
@click.option(
    "--workload",
    "workloads",
    metavar="NAME",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    help=f"Measure this on that cluster: {', '.join(WORKLOADS)}. You can give several.  [default: all]",
)
@click.option(
    "--rounds",
    metavar="COUNT",
    type=WholeNumber(1, 1000),
    default=5,
    show_default=True,
    help="Run each contestant so many times, by turns.",
)
@click.option(
    "--against",
    type=click.Choice(["dog"]),
    help="Measure `dog vdi backup` as well, and `collie` of 2012 if that is on PATH.",
)
@click.option(
    "--delay",
    "delays_ms",
    metavar="MS,...",
    callback=_delays,
    default="0",
    show_default=True,
    help="Measure over ways to that cluster on which a round trip takes so many milliseconds more, such as 0,2,20.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=PathName(path_type=Path, dir_okay=False),
    help="Write all that was measured to FILE, in place of what is there.",
)
@quiet_option
def command(
    *,
    gateways: Sequence[Address],
    vdi: str | None,
    snapshot: int | str | None,
    base: int | str | None,
    rate: int | None,
    nodes: int | None,
    copies: int | None,
    objects: int,
    folder: Path | None,
    workloads: Sequence[str],
    rounds: int,
    against: str | None,
    delays_ms: Sequence[float],
    json_file: Path | None,
    quiet: bool,
) -> None:
    """Measure how fast backups are on a running cluster, which is only read, or on one for the occasion.

    Contestants back up the same by turns: asyncbackup, each time as a new process; the drain, which sends the same
    requests and drops what comes, so that it shows what the cluster gives at most; and `dog` with --against.

    GB/s and CPU seconds count the bytes that can differ, whatever a contestant reads. A ratio is that of the same
    round. Brackets hold the least and the most: where those of two figures overlap, the difference may be noise.
    """
    _check(nodes=nodes, vdi=vdi, snapshot=snapshot, base=base, rate=rate, against=against)
    references = [] if against is None else [name for name in REFERENCES if programs.is_on_path(name)]
    if against is not None and against not in references:
        raise ProgramMissing(against)
    if json_file is not None:
        check_report(json_file)

    async def work_locally() -> Results:
        assert nodes is not None
        names = list(dict.fromkeys(workloads)) or list(WORKLOADS)
        options = LocalOptions(
            [WORKLOADS[name] for name in names],
            objects,
            rounds,
            Situation(nodes, min(nodes, copies or 2)),
            delays_ms,
            references,
            folder,
        )
        with telling_steps(wanted=not quiet) as tell:
            cases = await measure_local(options, Steps(options.steps(), tell))
        sheep = await machine.version("sheep") if is_real() else "the embedded server"
        described = await machine.describe(reference=references, sheep=f"{sheep}, on this machine")
        return Results(described, commands_of(references), rounds, cases)

    async def work_on_running() -> Results:
        async with connect_any(gateways, ClientOptions(rate=rate)) as cluster:
            wanted = await choose(cluster) if vdi is None else Choice(vdi, _named(snapshot), base)
            expected = await estimate(cluster, wanted.vdi, snapshot=wanted.snapshot, base=wanted.base)
            count = await cluster.count_nodes()
        if references and wanted.base is None:
            raise click.UsageError(
                f"{against} makes no full backups: name an older snapshot with -F, or leave --against out"
            )
        job = Job(tuple(gateways), *wanted, rate=rate)
        options = RunningOptions(job, Situation(count or 1), rounds, references, folder)
        if not quiet:
            say(
                f"reading {text.size(expected.bytes_to_read)} of {wanted} at most, {1 + options.runs()} times", err=True
            )
        with telling_steps(wanted=not quiet) as tell:
            case = await measure_running(options, expected, Steps(options.steps(), tell))
        where = ", ".join(f"{host}:{port}" for host, port in gateways)
        described = await machine.describe(reference=references, sheep=f"at {where}, {count or 'unknown'} nodes")
        return Results(described, commands_of(references), rounds, [case])

    results = run_async(work_on_running if nodes is None else work_locally)
    link = machine.find_link(gateways[0][0]) if nodes is None else None
    if json_file is not None:
        write_report(json_file, results.encode())
    if not quiet:
        tell_results(results, rate, link)


def _named(snapshot: int | str | None) -> int | str:
    assert snapshot is not None
    return snapshot


def _check(
    *,
    nodes: int | None,
    vdi: str | None,
    snapshot: int | str | None,
    base: int | str | None,
    rate: int | None,
    against: str | None,
) -> None:
    """Raise UsageError for options that do not go together."""
    if nodes is None:
        if option := find_given(_OF_LOCAL):
            raise click.UsageError(f"{option} says what a cluster for the occasion is like: give --local as well")
    elif option := find_given(_OF_RUNNING):
        raise click.UsageError(f"{option} is for a running cluster: leave it or --local out")
    if (vdi is None) != (snapshot is None) or (base is not None and vdi is None):
        raise click.UsageError("name what to read with --vdi and -s, and an older snapshot with -F, or leave all out")
    if rate is not None and against is not None:
        raise click.UsageError(f"{against} keeps to no rate: leave --rate or --against out")


def commands_of(references: Sequence[str]) -> list[str]:
    """Write what the contestants are, as it would be typed."""
    ours = "asyncbackup backup -s NEW -F OLD VDI FILE"
    drain = "drain: the requests of asyncbackup again, and what they bring dropped"
    return [ours, drain, *(f"{name} vdi backup -s NEW -F OLD VDI > FILE" for name in references)]


def tell_results(results: Results, rate: int | None, link: float | None) -> None:
    """Print what was measured, and what bounds it."""
    say("; ".join(f"{name}: {value}" for name, value in results.machine.items()))
    say(f"median of {results.rounds} rounds, and in brackets the least and the most")
    for case in results.cases:
        say("", *case_lines(case))
    say("")
    say(*(advice_line(case, rate=rate, link=link) for case in results.cases))
    say(f"ok: {outcome_line(results.cases)}")


def check_report(file: Path) -> None:
    """Raise TargetUnusable if no file can be made there. Nobody wants to know that after an hour."""
    try:
        with _beside(file).open("x"):
            pass
        _beside(file).unlink()
    except OSError as error:
        raise TargetUnusable(str(file), error.strerror or str(error)) from error


def write_report(file: Path, content: str) -> None:
    """Write a file, or replace it as a whole. Raises TargetUnusable."""
    try:
        _beside(file).write_text(content)
        _beside(file).replace(file)
    except OSError as error:
        raise TargetUnusable(str(file), error.strerror or str(error)) from error


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


@contextmanager
def telling_steps(*, wanted: bool) -> Iterator[Callable[[Step], None]]:
    """Tell what is done now: with a bar where standard error is a terminal, else with a line for each cluster."""
    if not wanted:
        yield lambda _: None
    elif not is_terminal(err=True):
        yield _tell_line
    else:
        from rich import progress as rich  # noqa: PLC0415 - rich costs a quarter of the start-up
        from rich.console import Console  # noqa: PLC0415 - as above

        columns = (rich.BarColumn(16), rich.MofNCompleteColumn(), rich.TextColumn("{task.description}", markup=False))
        with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda step: bar.update(task, description=step.doing, completed=step.done, total=step.planned)


def _tell_line(step: Step) -> None:
    if step.is_preparation:
        say(f"bench: step {step.done + 1} of {step.planned}: {step.doing}", err=True)
