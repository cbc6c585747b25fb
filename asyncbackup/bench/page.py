"""Writes a report as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from asyncbackup.bench import figures
from asyncbackup.bench.cases import Case, Results
from asyncbackup.bench.charts import Chart, charts, label, rows
from asyncbackup.bench.programs import DRAIN, OURS
from asyncbackup.bench.statistics import Spread

_STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: #fff; color: #1f2328;
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 1rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .2rem; }
p, ul, dl { max-width: 46rem; }
.outcome { font-size: 1.15rem; }
.quiet, figcaption { color: #59636e; font-size: .92rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.2rem; }
figcaption { margin-top: .6rem; }
figure { margin: 0; padding: .9rem; border: 1px solid #d1d9e0; border-radius: .5rem; min-width: 0; }
svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #d1d9e0; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.case th { text-align: left; padding-top: 1rem; border-bottom-color: #1f2328; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; }
code { font-size: .9em; background: #f0f2f4; padding: .1em .3em; border-radius: .25em; overflow-wrap: anywhere; }
details { margin-top: .5rem; } summary { cursor: pointer; color: #59636e; font-size: .92rem; }
"""

_HEADER: Final = ("", "seconds", "GB/s", "CPU seconds a GB", "MiB at most", "asyncbackup is")


_WHAT: Final = """<h2>What was measured</h2>
<p>asyncbackup makes backups of volumes in a Sheepdog cluster. An <em>increment</em> is a backup of what changed between
two snapshots of a volume. To find that, a client reads the objects that each snapshot has of its own, and compares
them.</p>"""

_CONTESTANTS: Final = """
<p>These contestants did the same work by turns, each time as a new process, in {rounds} rounds:</p>
<dl><dt>asyncbackup</dt>
<dd>Reads, compares, and writes a backup to a file, with a manifest that can prove it later.</dd>
<dt>drain</dt>
<dd>The limit. It sends the requests that asyncbackup sent, as many at a time, and drops what comes. Nobody who asks
like that can be faster on this cluster.</dd>{reference}</dl>"""

_REFERENCE: Final = """
<dt>{names}</dt><dd>The client that comes with Sheepdog. It leaves what it wrote to the cache of the system, while
asyncbackup ends when its file is on the disk.</dd>"""

_NOISE: Final = """
<p><strong>Which figures are noise?</strong> A machine is never quiet. So each figure is the median of all rounds, and
stands with the least and the most: in brackets, or as a thin line. A ratio is taken within a round, since what disturbs
a round disturbs all who run in it. Where two such ranges overlap, or that of a ratio holds 1, the difference may be
noise.</p>"""


def write(results: Results, advice: Sequence[str], draw: Callable[[Chart], str]) -> str:
    """Give the page. ``advice`` says in words what bounds each case, ``draw`` makes SVG of a chart."""
    shown = charts(results)
    plain = [case for case in results.cases if case.place is None]
    body = [
        "<h1>How fast are backups here?</h1>",
        f'<p class="quiet">Measured by asyncbackup bench, {_text(results.machine.get("time", ""))}</p>',
        f'<p class="outcome">{_text(_outcome(plain))}</p>',
        *_explanation(results),
        "<h2>The figures</h2>",
        _table(plain),
        "<h2>What bounds a backup</h2>",
        _list(advice),
        "<h2>The plots</h2>",
        f'<div class="charts">{"".join(_figure(chart, draw) for chart in shown)}</div>',
        "<h2>Where it was measured, and how</h2>",
        _definitions(results),
    ]
    content = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>asyncbackup bench</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"{content}\n</body></html>\n"
    )


def _text(value: str) -> str:
    return html.escape(value)


def _outcome(cases: Sequence[Case]) -> str:
    said = []
    for name in _names(cases):
        ratios = [figures.times_faster(case, name).median for case in cases if name in case.runs]
        if name == DRAIN:
            said.append(f"asyncbackup has {_range(ratios, '.0%')} of the speed that the cluster gives at most")
        elif name != OURS:
            said.append(f"it is {_range(ratios, '.1f')} times as fast as {name}")
    return ", and ".join(said) + "."


def _names(cases: Iterable[Case]) -> list[str]:
    return list(dict.fromkeys(name for case in cases for name in case.runs))


def _range(values: Sequence[float], form: str) -> str:
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"


def _explanation(results: Results) -> list[str]:
    others = [name for name in _names(results.cases) if name not in {OURS, DRAIN}]
    reference = _REFERENCE.format(names=_text(" and ".join(others))) if others else ""
    return [_WHAT, _CONTESTANTS.format(rounds=results.rounds, reference=reference), _NOISE]


def _table(cases: Sequence[Case]) -> str:
    lines = [f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in _HEADER)}</tr>"]
    for case in cases:
        lines.append(
            f'<tr class="case"><th colspan="{len(_HEADER)}">{_text(label(case))}: {_text(case.title)}</th></tr>'
        )
        for each in figures.figures(case):
            cells = (
                each.name,
                _spread(each.wall_s),
                f"{each.gb_per_s:.2f}",
                f"{each.cpu_s_per_gb:.2f}",
                f"{each.peak_bytes / (1 << 20):.0f}",
                _verdict(each.name, each.times_faster),
            )
            lines.append(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>")
    note = (
        "GB/s and CPU seconds count the bytes that can differ, with both sides of each object, whatever a client reads."
    )
    return f'<div class="scroll"><table>{"".join(lines)}</table></div><p class="quiet">{note}</p>'


def _verdict(name: str, ratio: Spread | None) -> str:
    if ratio is None:
        return ""
    noise = "" if ratio.is_clear_of(1) else ", perhaps noise"
    return f"{_spread(ratio)} {'of its speed' if name == DRAIN else 'times as fast'}{noise}"


def _spread(value: Spread) -> str:
    return f"{value.median:.2f} ({value.least:.2f}-{value.most:.2f})"


def _figure(chart: Chart, draw: Callable[[Chart], str]) -> str:
    points = "".join(
        f"<tr><td>{_text(series)}</td><td>{_text(place)}</td><td>{_text(value)}</td></tr>"
        for series, place, value in rows(chart)
    )
    head = f"<tr><th></th><th>{_text(chart.x_label)}</th><th>{_text(chart.y_label)}</th></tr>"
    table = f'<div class="scroll"><table>{head}{points}</table></div>'
    return (
        f"<figure><h3>{_text(chart.title)}</h3>{draw(chart)}<figcaption>{_text(chart.explanation)}</figcaption>"
        f"<details><summary>The points</summary>{table}</details></figure>"
    )


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _definitions(results: Results) -> str:
    machine = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in results.machine.items())
    commands = "".join(f"<li><code>{_text(command)}</code></li>" for command in results.commands)
    return f"<dl>{machine}</dl><p>What was typed, and what was run by turns:</p><ul>{commands}</ul>"
