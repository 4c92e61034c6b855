"""Plots as inline SVG: pure functions from plain data and a width in pixels to `Markup`. No script, no files, no ids.

Colours are classes of `style.css` (light, dark, print). No line or mark differs from another by colour alone, every plot says in words
what it shows, and what has no number is left out: a line has a gap there.
"""

import math
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from markupsafe import Markup, escape

from tidemill.core import Event, steps
from tidemill.web.templates import figure, local, number, percent

WHO = {"frozen": "frozen model", "loop": "model in the loop"}
# Kind of event → class (its meaning) and shape: one step up, one back, a warning, plain work.
KINDS: dict[str, tuple[str, str]] = {
    Event.DRIFT_FOUND: ("warn", "diamond"),
    Event.QUALITY_DROP: ("warn", "wedge"),
    Event.SKEW_FOUND: ("warn", "cross"),
    Event.RETRAINED: ("work", "dot"),
    Event.GATE_REFUSED: ("bad", "cross"),
    Event.CANARY: ("work", "square"),
    Event.APPROVAL_NEEDED: ("work", "bar"),
    Event.PROMOTED: ("good", "peak"),
    Event.ROLLED_BACK: ("bad", "wedge"),
}
SHAPES = {
    "dot": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    "square": "M-3.5-3.5h7v7h-7Z",
    "diamond": "M0-5L5 0L0 5L-5 0Z",
    "peak": "M0-5L5 4H-5Z",
    "wedge": "M0 5L-5-4H5Z",
    "cross": "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
    "bar": "M-2-5h4v10h-4Z",
}
MARKS = {"frozen": "square", "loop": "dot"}
Point = tuple[float, float]


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """One element, with text and attributes escaped.

    >>> tag("text", "<b>", x=1.25, class_="a")
    Markup('<text x="1.2" class="a">&lt;b&gt;</text>')
    """
    shown = {key: f"{value:.1f}" if isinstance(value, float) else value for key, value in attributes.items()}
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in shown.items())
    return Markup(f"<{name}{pairs}>{''.join(map(escape, inside))}</{name}>")  # noqa: S704 - names are of this file, all else is escaped


@dataclass(frozen=True)
class Frame:
    """The drawing area of a plot: its size and margins in pixels, and the values at its edges."""

    width: int
    height: int
    xs: tuple[float, float]
    ys: tuple[float, float]
    left: int = 62
    right: int = 14
    top: int = 12
    bottom: int = 46

    def x(self, value: float) -> float:
        low, high = self.xs
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.ys
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    @property
    def floor(self) -> float:
        return float(self.height - self.bottom)

    @property
    def end(self) -> float:
        return float(self.width - self.right)

    def draw(self, alternative: str, *parts: Markup) -> Markup:
        """The whole picture, with its text alternative."""
        size = {"viewBox": f"0 0 {self.width} {self.height}", "class_": "wide" if self.width > 500 else "narrow"}
        return tag("svg", *parts, role="img", aria_label=alternative, **size)

    def rule(self, value: float, text: str) -> Markup:
        """A horizontal grid line with its label."""
        y = self.y(value)
        label = tag("text", text, x=self.left - 8.0, y=y + 4, class_="tick end")
        return tag("line", x1=float(self.left), x2=self.end, y1=y, y2=y, class_="grid") + label

    def titles(self, x: str, y: str) -> Markup:
        """What the two axes show, with units."""
        middle = (self.left + self.end) / 2
        at = f"translate(13 {(self.top + self.floor) / 2:.1f}) rotate(-90)"
        return tag("text", x, x=middle, y=self.height - 6.0, class_="axis middle") + tag("text", y, transform=at, class_="axis middle")


def span_of(result: dict[str, Any]) -> tuple[float, float] | None:
    """The days (ordinals) from the first to the end of the last that a result speaks of; None when it speaks of none."""
    days = [float(row["day"]) for row in result.get("daily") or []]
    if not days:
        months = [_month(row["month"]) for row in result.get("months") or []]
        days = [edge for first, last in months for edge in (first, last - 1)]
    return (min(days), max(days) + 1) if days else None


def _month(name: str) -> Point:
    year, month = int(name[:4]), int(name[5:7])
    first = date(year, month, 1).toordinal()
    return float(first), float(first + monthrange(year, month)[1])


def months_axis(frame: Frame) -> Markup:
    """Months below a time axis: a line where each begins, its name in the middle of what is seen of it."""
    low, high = frame.xs
    at, names = date.fromordinal(int(low)).replace(day=1), []
    while at.toordinal() < high:
        names.append(at)
        at = date(at.year + at.month // 12, at.month % 12 + 1, 1)
    every = math.ceil(len(names) * 44 / max(frame.end - frame.left, 1))  # a name needs 44 pixels
    parts = []
    for index, first in enumerate(names):
        start, end = (max(low, min(high, edge)) for edge in _month(first.isoformat()))
        if first.toordinal() > low:
            parts.append(tag("line", x1=frame.x(start), x2=frame.x(start), y1=float(frame.top), y2=frame.floor + 5, class_="grid"))
        if index % every == 0:
            text = first.strftime("%b %Y" if index == 0 and len(names) == 1 else "%b")
            parts.append(tag("text", text, x=frame.x((start + end) / 2), y=frame.floor + 17, class_="tick middle"))
    return Markup("").join(parts)


def years(span: tuple[float, float]) -> str:
    """The year or years of a span, for the title of a time axis."""
    first, last = date.fromordinal(int(span[0])).year, date.fromordinal(int(span[1]) - 1).year
    return str(first) if first == last else f"{first}–{last}"


def line(frame: Frame, points: Iterable[tuple[float, float | None]], class_: str) -> Markup:
    """A line through points; it breaks where a value is missing."""
    parts, pen = [], "M"
    for x, value in points:
        if value is None:
            pen = "M"
        else:
            parts.append(f"{pen}{frame.x(x):.1f} {frame.y(value):.1f}")
            pen = "L"
    return tag("path", d="".join(parts), class_=f"line {class_}") if parts else Markup("")


def mark(shape: str, x: float, y: float, class_: str, hover: str = "") -> Markup:
    """A small shape centred on a place, with text on hover."""
    return tag("path", *([tag("title", hover)] if hover else []), d=SHAPES[shape], transform=f"translate({x:.1f} {y:.1f})", class_=class_)


def legend(names: dict[str, str]) -> Markup:
    """What the lines, marks and shades of a plot mean: name → `frozen`, `loop`, `shade`, `ideal`, or a kind of event."""
    items = []
    for name, what in names.items():
        parts = []
        if what in KINDS:
            parts.append(mark(KINDS[what][1], 11, 7, f"mark {KINDS[what][0]}"))
        elif what == "shade":
            parts.append(tag("rect", x=2, y=2, width=18, height=10, class_="shade"))
        else:
            parts.append(tag("path", d="M1 7H21", class_=f"line {what}"))
            parts += [mark(MARKS[what], 11, 7, f"mark {what}")] if what in MARKS else []
        items.append(tag("li", tag("svg", *parts, viewBox="0 0 22 14", class_="key", aria_hidden="true"), " ", name))
    return tag("ul", *items, class_="legend")


def event_day(event: dict[str, Any], timezone: str) -> float | None:
    """When an event was, as an ordinal day with a fraction; None when it does not say."""
    found = local(event.get("at"), timezone)
    return None if found is None else found.toordinal() + (found.hour * 60 + found.minute) / 1440


def told(event: dict[str, Any], timezone: str) -> str:
    """An event in one line."""
    found = local(event.get("at"), timezone)
    when = found.strftime("%Y-%m-%d") if found else str(event.get("at") or "")
    return f"{when} {event.get('kind', '')} {event.get('subject', '')}: {event.get('why', '')}"


def auc_plot(result: dict[str, Any], span: tuple[float, float], timezone: str, width: int) -> Markup:
    """ROC AUC by month, frozen against loop, with promotions and rollbacks at the top."""
    rows = [(row, _month(row["month"])) for row in result["months"]]
    found = {who: [(sum(edge) / 2, number((row.get(who) or {}).get("roc_auc"))) for row, edge in rows] for who in WHO}
    values = [value for points in found.values() for _, value in points if value is not None]
    if not values:
        return Markup("")
    marks = steps(min(values), max(values))
    low, high = min([span[0], *(edge[0] for _, edge in rows)]), max([span[1], *(edge[1] for _, edge in rows)])
    frame = Frame(width, 300, (low, high), (marks[0], marks[-1]), top=32)
    parts = [frame.rule(value, figure(value, 2)) for value in marks] + [months_axis(frame)]
    parts += _moves(frame, result.get("events") or [], timezone)
    for who, points in found.items():
        parts.append(line(frame, points, who))
        for (row, _), (x, value) in zip(rows, points, strict=True):
            if value is not None:
                hover = f"{row['month']} {WHO[who]}: ROC AUC {figure(value)} on {figure(row.get('rows'), 0)} rows"
                parts.append(mark(MARKS[who], frame.x(x), frame.y(value), f"mark {who}", hover))
    parts.append(frame.titles(f"month of the event, {years((low, high))}", "ROC AUC"))
    return frame.draw(f"ROC AUC by month, frozen model against model in the loop. {_ahead(found)}", *parts)


def _ahead(found: dict[str, list[tuple[float, float | None]]]) -> str:
    pairs = [(f, s) for (_, f), (_, s) in zip(found["frozen"], found["loop"], strict=True) if f is not None and s is not None]
    return f"The loop is higher in {sum(s > f for f, s in pairs)} of {len(pairs)} months."


def _moves(frame: Frame, events: Sequence[dict[str, Any]], timezone: str) -> list[Markup]:
    """Where the champion moved, or a candidate was sent back."""
    parts = []
    for event in events:
        at = event_day(event, timezone)
        if event.get("kind") in (Event.PROMOTED, Event.ROLLED_BACK) and at is not None and frame.xs[0] <= at <= frame.xs[1]:
            class_, shape = KINDS[event["kind"]]
            x = frame.x(at)
            parts.append(tag("line", x1=x, x2=x, y1=frame.top - 8.0, y2=frame.floor, class_=f"event {class_}"))
            parts.append(mark(shape, x, frame.top - 16.0, f"mark {class_}", told(event, timezone)))
    return parts


def smooth(days: Sequence[tuple[int, float]], window: int = 7) -> list[Point]:
    """The mean over the `window` days around each day (fewer at the ends and around missing days).

    >>> smooth([(1, 0.0), (2, 3.0), (9, 5.0)], 3)
    [(1, 1.5), (2, 1.5), (9, 5.0)]
    """
    known, half = dict(days), window // 2
    near = [[known[d] for d in range(day - half, day + half + 1) if d in known] for day, _ in days]
    return [(day, math.fsum(values) / len(values)) for (day, _), values in zip(days, near, strict=True)]


def _with_gaps(points: list[Point]) -> list[tuple[float, float | None]]:
    """A missing value after each day that the next day does not follow, so that no line is drawn over days without rows."""
    found: list[tuple[float, float | None]] = []
    for index, (at, value) in enumerate(points):
        if index and at - points[index - 1][0] > 1:
            found.append((at, None))
        found.append((at + 0.5, value))
    return found


def loss_plot(daily: Sequence[dict[str, Any]], span: tuple[float, float], positive: str, width: int) -> Markup:
    """Daily mean log loss over 7 days, frozen against loop, above the share of positives of each day."""
    series = {who: smooth([(int(row["day"]), row[who]) for row in daily if number(row.get(who)) is not None]) for who in WHO}
    values = [value for points in series.values() for _, value in points]
    if not values:
        return Markup("")
    marks = steps(min(values), max(values))
    frame = Frame(width, 300, span, (marks[0], marks[-1]), right=48)
    bars, scale = _shares(frame, daily)
    parts = [bars, *(frame.rule(value, figure(value, 2)) for value in marks), months_axis(frame), scale]
    parts += [line(frame, _with_gaps(points), who) for who, points in series.items()]
    at = f"translate({width - 5} {(frame.top + frame.floor) / 2:.1f}) rotate(-90)"
    parts.append(tag("text", f"share {positive} (%)", transform=at, class_="axis middle"))
    parts.append(frame.titles(f"day of the event, {years(span)}", "log loss (nats per row)"))
    both = [(value, alone[at]) for alone in [dict(series["frozen"])] for at, value in series["loop"] if at in alone]
    lower = f"The loop is lower on {sum(loop < frozen for loop, frozen in both)} of {len(both)} days."
    text = f"Log loss by day, mean over 7 days. {lower} Behind: the share {positive} of each day."
    return frame.draw(text, *parts)


def _shares(frame: Frame, daily: Sequence[dict[str, Any]]) -> tuple[Markup, Markup]:
    """Faint bars of the share of positives, on a scale of their own from 0 at the right, and that scale."""
    shares = [(row["day"], share) for row in daily if (share := number(row.get("share_positive"))) is not None]
    if not shares:
        return Markup(""), Markup("")
    marks = steps(0.0, max(max(share for _, share in shares), 0.01), 4)
    own = Frame(frame.width, frame.height, frame.xs, (0.0, marks[-1]), right=frame.right, top=frame.top)
    wide = own.x(own.xs[0] + 1) - own.x(own.xs[0])
    path = "".join(f"M{own.x(day):.1f} {own.floor:.0f}V{own.y(share):.1f}h{wide:.1f}V{own.floor:.0f}" for day, share in shares)
    ticks = [tag("text", percent(value).removesuffix(" %"), x=frame.end + 6, y=own.y(value) + 4, class_="tick") for value in marks]
    return tag("path", d=path, class_="shade"), Markup("").join(ticks)


def calibration_plot(curves: dict[str, Any], positive: str, width: int) -> Markup:
    """What was predicted against what came: on the diagonal, predictions mean what they say."""
    found = {who: [point for point in curves.get(who) or [] if None not in map(number, point[:2])] for who in WHO}
    values = [value for points in found.values() for point in points for value in point[:2]]
    if not values:
        return Markup("")
    marks = steps(0.0, max(values), 4)
    edges = (0.0, marks[-1])
    frame = Frame(width, min(width, 460), edges, edges)
    parts = [frame.rule(value, percent(value).removesuffix(" %")) for value in marks]
    parts += [tag("text", percent(v).removesuffix(" %"), x=frame.x(v), y=frame.floor + 17, class_="tick middle") for v in marks]
    parts.append(line(frame, [(0.0, 0.0), (edges[1], edges[1])], "ideal"))
    for who, points in found.items():
        parts.append(line(frame, [(p, share) for p, share, *_ in points], who))
        for p, share, *rows in points:
            hover = f"{WHO[who]}: predicted {percent(p, 1)}, came {percent(share, 1)}, {figure(rows[0] if rows else None, 0)} rows"
            parts.append(mark(MARKS[who], frame.x(p), frame.y(share), f"mark {who}", hover))
    parts.append(frame.titles("predicted probability, mean of the bin (%)", f"share {positive} that came (%)"))
    return frame.draw("Calibration: predicted probability against the share that came, for both models, with the diagonal.", *parts)


def reigns(events: Sequence[dict[str, Any]], end: float, timezone: str) -> list[tuple[str, float, float]]:
    """Which version was champion from when to when, as promotions tell it; one that is rolled back gives way to the one before."""
    line_up: list[str] = []
    found: list[tuple[str, float, float]] = []
    for event in events:
        at, subject, kind = event_day(event, timezone), str(event.get("subject", "")), event.get("kind")
        if at is None or not (kind == Event.PROMOTED or (kind == Event.ROLLED_BACK and line_up[-1:] == [subject])):
            continue
        line_up = [*line_up, subject] if kind == Event.PROMOTED else line_up[:-1]
        if found:
            found[-1] = (found[-1][0], found[-1][1], at)
        if line_up:
            found.append((line_up[-1], at, end))
    return [reign for reign in found if reign[2] > reign[1]]


def timeline(events: Sequence[dict[str, Any]], span: tuple[float, float], timezone: str, width: int) -> Markup:
    """Every event on a lane of its kind, over the champions of the time."""
    placed = [(event, at) for event in events if (at := event_day(event, timezone)) is not None]
    if not placed:
        return Markup("")
    span = (min(span[0], *(at for _, at in placed), span[1]), max(span[1], *(at for _, at in placed), span[0]))
    lanes = [kind for kind in KINDS if any(event.get("kind") == kind for event, _ in placed)]
    frame = Frame(width, 32 + 26 * len(lanes) + 56, span, (0.0, 1.0), left=118, top=6)
    parts = [months_axis(frame), tag("text", "champion", x=frame.left - 8.0, y=23.0, class_="tick end")]
    for index, (label, start, end) in enumerate(reigns(events, span[1], timezone)):
        x, wide = frame.x(start), frame.x(end) - frame.x(start)
        hover = tag("title", f"{label} from {date.fromordinal(int(start))}")
        parts.append(tag("rect", hover, x=x, y=8.0, width=wide, height=22.0, class_=f"reign {'odd' if index % 2 else 'even'}"))
        short = label.rpartition("/")[2] if wide < 8 * len(label) else label
        parts += [tag("text", short, x=x + wide / 2, y=23.0, class_="tick middle")] if wide > 7 * len(short) else []
    for index, kind in enumerate(lanes):
        parts += _lane(frame, kind, 48.0 + 26 * index, placed, timezone)
    parts.append(
        tag("text", f"day of the decision, {years(span)}", x=(frame.left + frame.end) / 2, y=frame.height - 6.0, class_="axis middle")
    )
    counts = ", ".join(f"{kind} {sum(event.get('kind') == kind for event, _ in placed)}" for kind in lanes)
    return frame.draw(f"Events over time: {counts}. Each is told in the table of events.", *parts)


def _lane(frame: Frame, kind: str, y: float, placed: list[tuple[dict[str, Any], float]], timezone: str) -> list[Markup]:
    class_, shape = KINDS[kind]
    mine = [(event, at) for event, at in placed if event.get("kind") == kind]
    parts = [tag("line", x1=float(frame.left), x2=frame.end, y1=y, y2=y, class_="grid")]
    parts.append(tag("text", f"{kind} · {len(mine)}", x=frame.left - 8.0, y=y + 4, class_="tick end"))
    return parts + [mark(shape, frame.x(at), y, f"mark {class_}", told(event, timezone)) for event, at in mine]
