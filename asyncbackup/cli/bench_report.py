"""Says in words what `asyncbackup bench` measured, and what could make it faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from asyncbackup.bench import figures
from asyncbackup.bench.cases import MOST_BYTES, Case, Results, decode
from asyncbackup.bench.comparison import Change, compare, differences
from asyncbackup.bench.figures import Bound, Figures
from asyncbackup.bench.programs import DRAIN, OURS
from asyncbackup.bench.statistics import Spread
from asyncbackup.cli import text
from asyncbackup.cli.main import typed_command
from asyncbackup.cli.output import say
from asyncbackup.errors import ResultsDamaged, SourceMissing, SourceUnreadable, TargetUnusable

_HEADER: Final = ("", "seconds", "GB/s", "CPU s/GB", "peak MiB", "asyncbackup is")

_ADVICE: Final = {
    Bound.RATE: "--rate bounds it: a higher one makes it faster",
    Bound.NETWORK: "the network of this machine bounds it: no option changes that, a machine with a faster one does",
    Bound.ONE_NODE: "the one node of the cluster bounds it, or the way there: a reader that drops all gets no more; "
    "no option changes that, more nodes do",
    Bound.NODES: "the nodes of the cluster bound it, or the way there: a reader that drops all gets no more; "
    "no option changes that, more nodes or faster disks do",
    Bound.PROCESSOR: "the processor of this machine bounds it: --no-manifest saves the digests, but is no proof then",
    Bound.TARGET: "the target bounds it: a FILE on a faster disk makes it faster",
    Bound.START: "there is so little to read that the start of the program bounds it: no option changes that",
    Bound.NOTHING: "the cluster would give more, and neither the processor nor the target of this machine is busy all "
    "the time: a larger --in-flight may make it faster",
}


def case_lines(case: Case) -> list[str]:
    """Tell what was measured of a case: a table, and what ours tells of itself."""
    rows = [_row(each) for each in figures.figures(case)]
    lines = [f"{case.name}: {case.title}{_where(case)}", *draw(_HEADER, rows)]
    told = figures.insides(case)
    if not told:
        return lines
    read = max(inside.bytes_read for inside in told)
    lines.append(f"read {text.size(read)}, of {text.size(case.bytes_needed)} that can differ{_answers(case)}")
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in figures.stages(case).items())
    busy = ", ".join(f"{name} {seconds:.2f}" for name, seconds in figures.busy(case).items())
    lines.append(f"seconds: {stages}; while it read: {busy}")
    return lines


def _where(case: Case) -> str:
    situation = case.situation
    nodes = f"; {situation.nodes} nodes" if situation.nodes > 1 else ""
    copies = f", {situation.copies} copies" if situation.copies > 1 else ""
    delay = f"; a round trip of {situation.delay_ms:g} ms" if situation.delay_ms else ""
    return f"{nodes}{copies}{delay}"


def _row(each: Figures) -> tuple[str, ...]:
    return (
        each.name,
        spread(each.wall_s),
        f"{each.gb_per_s:.2f}",
        f"{each.cpu_s_per_gb:.2f}",
        f"{each.peak_bytes / (1 << 20):.0f}",
        _verdict(each),
    )


def _verdict(each: Figures) -> str:
    if each.times_faster is None:
        return ""
    ratio = spread(each.times_faster)
    return f"{ratio} of its speed" if each.name == DRAIN else f"{ratio} times as fast"


def _answers(case: Case) -> str:
    latencies = figures.latencies(case)
    if not latencies:
        return ""
    within = ", ".join(f"{percent} % in {latencies[percent] * 1000:.1f}" for percent in ("50", "90", "99", "99.9"))
    return f"; answers in ms: {within}"


def advice_line(case: Case, *, rate: int | None = None, link: float | None = None) -> str:
    """Say what bounds a case, and what would change it."""
    return f"{case.name}: {_ADVICE[figures.find_bound(case, rate=rate, link=link)]}"


def spread(value: Spread) -> str:
    """Write the median, and between which values all are: ``1.07 (1.02-1.11)``."""
    return f"{value.median:.2f} ({value.least:.2f}-{value.most:.2f})"


def draw(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for first, *others in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def outcome_line(cases: Sequence[Case]) -> str:
    """Say in one line what came of it."""
    shares = [figures.share_of_drain(case).median for case in cases]
    line = f"asyncbackup has {_range(shares, '.0%')} of the drain's speed"
    for name in cases[0].runs.keys() - {OURS, DRAIN}:
        ratios = [figures.times_faster(case, name).median for case in cases]
        line += f", and is {_range(ratios, '.1f')} times as fast as {name}"
    return line


def _range(values: Sequence[float], form: str) -> str:
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"


def commands_of(references: Sequence[str]) -> list[str]:
    """Write what was typed, and what the contestants are."""
    ours = "asyncbackup backup -s NEW -F OLD VDI FILE"
    drain = "drain: the requests of asyncbackup again, and what they bring dropped"
    return [typed_command(), ours, drain, *(f"{name} vdi backup -s NEW -F OLD VDI > FILE" for name in references)]


def tell_results(results: Results, cases: Sequence[Case], advice: Sequence[str], comparison: Sequence[str]) -> None:
    """Print what was measured, and what bounds it."""
    say("; ".join(f"{name}: {value}" for name, value in results.machine.items()))
    say(f"median of {results.rounds} rounds, and in brackets the least and the most")
    for case in cases:
        say("", *case_lines(case))
    say("", *comparison, *advice)
    say(f"ok: {outcome_line(cases)}")


def comparison_lines(old: Results, new: Results) -> list[str]:
    """Tell what changed since older results."""
    changes = compare(old, new)
    if not changes:
        return ["nothing to compare: the older results have no case that was measured now", ""]
    rows = [
        (change.case, change.figure, spread(change.then), spread(change.now), f"{change.factor:.2f}", _judge(change))
        for change in changes
    ]
    header = ("since then", "", "then", "now", "times", "")
    warnings = [f"another machine, so compare ratios only: {each}" for each in differences(old, new)]
    return [*warnings, *draw(header, rows), ""]


def _judge(change: Change) -> str:
    return "changed" if change.is_clear else "perhaps noise"


def read_results(file: Path) -> Results:
    """Read what --json wrote. Raises SourceMissing, SourceUnreadable and ResultsDamaged."""
    try:
        with file.open("rb") as source:
            content = source.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise SourceMissing(str(file)) from error
    except OSError as error:
        raise SourceUnreadable(str(file), error.strerror or str(error)) from error
    if len(content) > MOST_BYTES:
        raise ResultsDamaged(str(file), f"expected at most {MOST_BYTES} bytes of results, got more")
    return decode(content.decode(errors="replace"), str(file))


def check_report(file: Path) -> None:
    """Raise TargetUnusable if no file can be made there. Nobody wants to know that after an hour."""
    try:
        _beside(file).touch()
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
