"""Curves of runs and tables beside them, as HTML that stands alone: inline SVG, no script, nothing loaded. Curves as a figure of
matplotlib too, where that is installed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tidemill.core import MissingExtra, StoreError, steps

Points = Sequence[tuple[float, float]]
COLOURS = ("#0069ad", "#b45309", "#00775a", "#b3261e", "#7c3aed", "#526170", "#c026d3", "#65a30d")
MOST = 1e300  # what is larger would leave the range of numbers on its way to the axis: a gap, as for infinity
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # no line differs from another by its colour alone
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 340, 74, 14, 14, 46
STYLE = """<style>
.tidemill { font: 14px/1.5 system-ui, sans-serif; color: #1b2733; background: #fff; max-width: 1100px }
.tidemill h1 { font-size: 20px } .tidemill h2 { font-size: 16px; margin: 28px 0 4px }
.tidemill table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
.tidemill th, .tidemill td { padding: 3px 10px; border-bottom: 1px solid #e3e8ec; text-align: left }
.tidemill th, .tidemill td { vertical-align: top; max-width: 420px; overflow-wrap: anywhere }
.tidemill th { color: #526170; font-weight: 600 } .tidemill .scroll { overflow-x: auto }
.tidemill svg { width: 100%; max-width: 900px; height: auto } .tidemill svg text { font: 12px system-ui, sans-serif; fill: #526170 }
.tidemill pre { background: #f5f7f8; padding: 10px; overflow-x: auto; font-size: 12px; line-height: 1.35 }
.tidemill .gone { color: #b3261e } .tidemill .new { color: #00775a }
</style>"""


def shown(value: Any) -> str:
    """A value as a person reads it.

    >>> shown(0.123456789), shown(None), shown(12)
    ('0.123457', '–', '12')
    """
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(heads: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """A table; an equal first cell is written once."""
    lines, last = [], None
    for row in cells:
        first = "" if row[0] == last else shown(row[0])
        last = row[0]
        lines.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in [first, *map(shown, row[1:])]) + "</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f'{STYLE}<div class="tidemill scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


@dataclass(frozen=True)
class Curves:
    """One metric of several runs: by the run's name, (step, value) in the order of steps. A value that is no number is a gap."""

    metric: str
    series: Mapping[str, Points]

    def svg(self) -> str:
        """The picture."""
        series = {
            name: [(step, value) if abs(value) < MOST else (step, math.nan) for step, value in curve] for name, curve in self.series.items()
        }
        points = [one for curve in series.values() for one in curve if math.isfinite(one[1])]
        if not points:
            return f"<p>{escape(self.metric)}: no value is a number that can be drawn</p>"
        xs, ys = ([float(point[axis]) for point in points] for axis in (0, 1))
        ticks = steps(min(ys), max(ys))
        across = [tick for tick in steps(min(xs), max(xs), 8) if min(xs) <= tick <= max(xs)]
        x = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
        y = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
        below = HEIGHT - BOTTOM + 18
        grid = [_rule(y(tick), shown(float(tick))) for tick in ticks]
        grid += [_text(x(tick), below, shown(float(tick)), "middle") for tick in across]
        lines = [_line(curve, x, y, i, name) for i, (name, curve) in enumerate(series.items())]
        axis = _text((LEFT + WIDTH) / 2, HEIGHT - 8, "step", "middle")
        said = f"{self.metric} by step of {', '.join(self.series)}"
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{"".join([*grid, *lines])}{axis}</svg>'

    def _repr_html_(self) -> str:
        keys = "".join(_key(i, name) for i, name in enumerate(self.series))
        return f'{STYLE}<div class="tidemill"><h2>{escape(self.metric)}</h2><div>{keys}</div>{self.svg()}</div>'

    def save(self, path: str | Path) -> Path:
        """Write a page that stands alone; raises StoreError."""
        return save(page(self.metric, "", [self], ""), path)

    def figure(self) -> Any:
        """The same as a figure of matplotlib; raises MissingExtra without it."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtra("a figure needs matplotlib", hint="pip install 'tidemill[plot]'") from error
        found = Figure(figsize=(9, 4), layout="constrained")
        axes = found.subplots()
        for i, (name, curve) in enumerate(self.series.items()):
            axes.plot(*zip(*curve, strict=True), label=name, color=COLOURS[i % len(COLOURS)])
        axes.set(xlabel="step", ylabel=self.metric)
        axes.legend()
        return found


def page(title: str, body: str, curves: Sequence[Curves], diff: str) -> str:
    """One HTML page: a body, curves, and a diff."""
    drawn = "".join(one._repr_html_().replace(STYLE, "") for one in curves)
    marked = "".join(f'<span class="{_CLASSES.get(line[:1], "")}">{escape(line)}</span>\n' for line in diff.splitlines())
    code = f"<h2>Code</h2><pre>{marked}</pre>" if diff else ""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title>{STYLE}'
    inner = f"<h1>{escape(title)}</h1>{body.replace(STYLE, '')}{drawn}{code}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body class="tidemill">{inner}</body></html>\n'


_CLASSES = {"-": "gone", "+": "new"}


def save(text: str, path: str | Path) -> Path:
    """Write a page; raises StoreError when the disk refuses."""
    path = Path(path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "name a file in a folder that is there"
        raise StoreError(f"the page cannot be written: {error.strerror or error}", where=str(path), hint=hint) from error
    return path


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _line(curve: Points, x: Any, y: Any, place: int, name: str) -> str:
    """A path with a gap where a value is no number; a single point as a dot."""
    parts, pen = [], "M"
    for step, value in curve:
        if math.isfinite(value):
            parts.append(f"{pen}{x(step):.1f} {y(value):.1f}")
            pen = "L"
        else:
            pen = "M"
    colour = COLOURS[place % len(COLOURS)]
    title = f"<title>{escape(name)}</title>"
    if len(parts) == 1:
        at = parts[0][1:].split()
        return f'<circle cx="{at[0]}" cy="{at[1]}" r="4" fill="{colour}">{title}</circle>'
    dash = DASHES[place % len(DASHES)]
    return f'<path d="{"".join(parts)}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}">{title}</path>'


def _rule(y: float, text: str) -> str:
    return f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e8ec"/>' + _text(LEFT - 8, y + 4, text, "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _key(place: int, name: str) -> str:
    line = f'stroke="{COLOURS[place % len(COLOURS)]}" stroke-width="2.4" stroke-dasharray="{DASHES[place % len(DASHES)]}"'
    return f'<svg viewBox="0 0 28 10" style="width:28px;height:10px"><path d="M0 5H28" {line}/></svg> {escape(name)} &nbsp; '
