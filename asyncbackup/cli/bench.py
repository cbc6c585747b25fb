"""``asyncbackup bench``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from asyncbackup.bench import machine, page, plots, programs, sweeps
from asyncbackup.bench.cases import Results, Situation
from asyncbackup.bench.job import Job
from asyncbackup.bench.measuring import LocalOptions, Step, Steps, measure_local
from asyncbackup.bench.programs import REFERENCES
from asyncbackup.bench.running import Choice, RunningOptions, choose, measure_running
from asyncbackup.bench.serving import is_real
from asyncbackup.bench.workloads import WORKLOADS
from asyncbackup.cli import text
from asyncbackup.cli.bench_report import (
    advice_line,
    check_report,
    commands_of,
    comparison_lines,
    read_results,
    tell_results,
    write_report,
)
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
from asyncbackup.errors import PlotsUnavailable, ProgramMissing
from asyncbackup.verbs.backup import estimate
from asyncbackup.wire.nodes import format_address

Tell = Callable[[Step], None]

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
    "--html",
    "html_file",
    metavar="FILE",
    type=PathName(path_type=Path, dir_okay=False),
    help="Write a report with plots to FILE, in place of what is there. For the plots more is measured. This needs "
    "matplotlib: install asyncbackup[report].",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=PathName(path_type=Path, dir_okay=False),
    help="Write all that was measured to FILE, in place of what is there.",
)
@click.option(
    "--compare",
    "old_file",
    metavar="OLD",
    type=PathName(path_type=Path, dir_okay=False),
    help="Compare with what an earlier run wrote with --json, and say which changes may be noise.",
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
    html_file: Path | None,
    json_file: Path | None,
    old_file: Path | None,
    quiet: bool,
) -> None:
    """Measure how fast backups are on a running cluster, which is only read, or on one for the occasion.

    Contestants back up the same by turns: asyncbackup, each time as a new process; the drain, which sends the same
    requests and drops what comes, so that it shows what the cluster gives at most; and `dog` with --against.

    GB/s and CPU seconds count the bytes that can differ, whatever a contestant reads. A ratio is that of the same
    round. Brackets hold the least and the most: where those of two figures overlap, the difference may be noise.
    """
    _check_copies(nodes, copies)
    _check(nodes=nodes, vdi=vdi, snapshot=snapshot, base=base, rate=rate, against=against)
    if html_file is not None and not plots.is_available():
        raise PlotsUnavailable
    old = None if old_file is None else read_results(old_file)
    for file in filter(None, (html_file, json_file)):
        check_report(file)
    references = _find_references(against)
    sweeps_wanted = html_file is not None

    async def work() -> Results:
        with telling_steps(wanted=not quiet) as tell:
            if nodes is None:
                wanted = None if vdi is None or snapshot is None else Choice(vdi, snapshot, base)
                options = await _prepare(gateways, wanted, rate)
                full = replace(options, rounds=rounds, against=references, folder=folder, sweeps=sweeps_wanted)
                return await _measure_running(full, tell)
            names = list(dict.fromkeys(workloads)) or list(WORKLOADS)
            shapes = [WORKLOADS[name] for name in names]
            situation = Situation(nodes, copies or min(nodes, 2))
            local = LocalOptions(shapes, objects, rounds, situation, delays_ms, references, folder)
            return await _measure_local(local, tell, sweeps_wanted=sweeps_wanted)

    results = run_async(work)
    link = machine.find_link(gateways[0][0]) if nodes is None else None
    plain = [case for case in results.cases if case.place is None]
    advice = [advice_line(case, rate=rate, link=link) for case in plain]
    if json_file is not None:
        write_report(json_file, results.encode())
    if html_file is not None:
        write_report(html_file, page.write(results, advice, plots.draw))
    if not quiet:
        tell_results(results, plain, advice, comparison_lines(old, results) if old else ())


async def _measure_local(options: LocalOptions, tell: Tell, *, sweeps_wanted: bool) -> Results:
    """Measure clusters for the occasion."""
    steps = Steps(options.steps() + (sweeps.count_local(options) if sweeps_wanted else 0), tell)
    cases = await measure_local(options, steps)
    if sweeps_wanted:
        cases += await sweeps.measure_local(options, steps)
    sheep = await machine.version("sheep") if is_real() else "the embedded server"
    described = await machine.describe(reference=options.against, sheep=f"{sheep}, on this machine")
    return Results(described, commands_of(options.against), options.rounds, cases)


async def _prepare(gateways: Sequence[Address], wanted: Choice | None, rate: int | None) -> RunningOptions:
    """Find out what to read of a running cluster, and how much that is."""
    async with connect_any(gateways, ClientOptions(rate=rate)) as cluster:
        wanted = wanted or await choose(cluster)
        expected = await estimate(cluster, wanted.vdi, snapshot=wanted.snapshot, base=wanted.base)
        nodes = await cluster.count_nodes()
    return RunningOptions(Job(tuple(gateways), *wanted, rate=rate), expected, Situation(nodes or 1))


async def _measure_running(options: RunningOptions, tell: Tell) -> Results:
    """Measure a cluster that runs."""
    if options.against and options.job.base is None:
        raise click.UsageError("dog makes no full backups: name an older snapshot with -F, or leave --against out")
    amount, runs = text.size(options.expected.bytes_to_read), options.runs() + 1
    tell(Step(f"reading {amount} at most, {runs} times", 0, runs, is_preparation=True))
    cases = await measure_running(options, Steps(options.steps(), tell))
    where = ", ".join(format_address(host, port) for host, port in options.job.gateways)
    sheep = f"{options.situation.nodes} nodes, found through {where}"
    described = await machine.describe(reference=options.against, sheep=sheep)
    return Results(described, commands_of(options.against), options.rounds, cases)


def _find_references(against: str | None) -> list[str]:
    """Give the reference clients to measure. Raises ProgramMissing."""
    if against is None:
        return []
    if not programs.is_on_path(against):
        raise ProgramMissing(against)
    return [name for name in REFERENCES if programs.is_on_path(name)]


def _check_copies(nodes: int | None, copies: int | None) -> None:
    """Raise UsageError if there are fewer nodes than copies."""
    if nodes is not None and copies is not None and copies > nodes:
        raise click.UsageError(f"{nodes} nodes cannot keep {copies} copies: give more with --local, or fewer --copies")


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


@contextmanager
def telling_steps(*, wanted: bool) -> Iterator[Tell]:
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
