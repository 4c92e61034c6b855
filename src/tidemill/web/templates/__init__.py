"""How pages look: the HTML, the style and the plots, and `fill`, which makes a page of a template and values.

Every value is escaped unless it is `Markup` made by `plots`. A missing key shows as nothing and None as a dash, so that a page of half a
project is still a page.
"""

import math
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

DASH = "–"


def number(value: Any) -> float | None:
    """The value as a finite number; None for what is missing, nan or no number.

    >>> number(1), number(None), number(float("nan")), number(True)
    (1.0, None, None, None)
    """
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None


def figure(value: Any, digits: int = 3) -> str:
    """A number with a fixed number of digits and thousands set apart.

    >>> figure(0.70699), figure(255987, 0), figure(None)
    ('0.707', '255,987', '–')
    """
    found = number(value)
    return DASH if found is None else f"{found:,.{digits}f}"


def signed(value: Any, digits: int = 3) -> str:
    """A difference, with its sign.

    >>> signed(0.0161), signed(-0.002), signed(0.0001)
    ('+0.016', '−0.002', '0.000')
    """
    found = number(value)
    if found is None:
        return DASH
    text = f"{abs(found):,.{digits}f}"
    return text if not float(text.replace(",", "")) else ("+" if found > 0 else "−") + text


def percent(value: Any, digits: int = 0) -> str:
    """A share in percent, never rounded up to a whole that it is not.

    >>> percent(0.132, 1), percent(0.9996), percent(1.0)
    ('13.2 %', '>99 %', '100 %')
    """
    found = number(value)
    if found is None:
        return DASH
    text = f"{100 * found:.{digits}f}"
    if found < 1 and float(text) >= 100:
        return f">{100 - 10**-digits:.{digits}f} %"
    return f"{text} %"


def local(text: Any, timezone: str = "UTC") -> datetime | None:
    """An ISO 8601 text as a time in the zone; None when it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    zone = ZoneInfo(timezone)
    return found.astimezone(zone) if found.tzinfo else found.replace(tzinfo=zone)


def day(text: Any, timezone: str = "UTC") -> str:
    """The local date, with the time of day unless it is midnight; other text is shown as it is.

    >>> day("2013-04-01T04:00:00Z", "America/New_York"), day("2013-04-01T04:30:00Z"), day("soon"), day(None)
    ('2013-04-01', '2013-04-01 04:30', 'soon', '–')
    """
    found = local(text, timezone)
    if found is None:
        return str(text) if text else DASH
    return found.strftime("%Y-%m-%d" if (found.hour, found.minute) == (0, 0) else "%Y-%m-%d %H:%M")


def better(frozen: Any, loop: Any, higher: bool) -> str:
    """Which of the two is better as shown: `frozen`, `loop`, or nothing when the figures read the same or one is missing."""
    if number(frozen) is None or number(loop) is None or figure(frozen) == figure(loop):
        return ""
    return "loop" if (loop > frozen) == higher else "frozen"


@cache
def _pages() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=loader, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.finalize = lambda value: DASH if value is None else value
    pages.filters.update(figure=figure, signed=signed, percent=percent, day=day)
    pages.globals.update(better=better)
    return pages


def fill(template: str, **values: Any) -> str:
    """The page of a template in this folder."""
    return _pages().get_template(template).render(**values)
