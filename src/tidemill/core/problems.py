"""What names, texts, lists, numbers and durations of a declaration may be: each function gives the errors that it finds.

`Declaration` raises the first of them, with file and line, when the value is made.
"""

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any

from tidemill.core.errors import DefinitionError, TidemillError
from tidemill.core.instants import DAY, SECOND, duration

Problems = Iterator[TidemillError]
LONGEST = 36_525 * DAY  # a hundred years: beyond, times leave the calendar


def odd_name(kind: str, name: object) -> Problems:
    """A name is part of columns, file names, addresses and refs.

    >>> [str(error.what) for name in ("dep-2_delay", "größe", "a b", "view.x", "") for error in odd_name("view", name)]
    ["the view's name 'a b' has ' '", "the view's name 'view.x' has '.'", "the view's name '' is empty"]
    """
    hint = "write letters, digits, _ and -, a letter first"
    if not isinstance(name, str):
        yield DefinitionError(f"the {kind}'s name {name!r} is no text", hint=hint)
    elif not re.fullmatch(r"(?!-|__)[\w-]+", name) or len(name.encode()) > 200:
        odd = re.search(r"[^\w-]", name)
        why = "is empty" if not name else f"has {odd[0]!r}" if odd else "is too long" if len(name) > 50 else f"begins with {name[:2]!r}"
        yield DefinitionError(f"the {kind}'s name {name if len(name) < 60 else name[:59] + '…'!r} {why}", hint=hint)


def odd_text(what: str, value: object, hint: str) -> Problems:
    """A text that says something."""
    if not isinstance(value, str) or not value.strip():
        yield DefinitionError(f"{what} is {value!r}, not a text" if not isinstance(value, str) else f"{what} is empty", hint=hint)


def odd_list(what: str, values: object, of: type | tuple[type, ...], example: str, *, some: bool = False) -> Problems:
    """A list (or tuple) of values of a type, each once; `some`: not of none. A text alone would be taken by its letters."""
    hint = f"for example {example}"
    if not isinstance(values, (list, tuple)):
        yield DefinitionError(f"{what}={values!r} is no list", hint=hint)
        return
    if some and not values:
        yield DefinitionError(f"{what} is an empty list", hint=hint)
    for value in values:
        if not isinstance(value, of):
            yield DefinitionError(f"{what} lists {value!r}, which does not belong there", hint=hint)
        elif isinstance(value, str) and not value:
            yield DefinitionError(f"{what} lists an empty text", hint=hint)
        elif isinstance(value, str) and values.count(value) > 1:
            yield DefinitionError(f"{what} lists {value!r} twice", hint="name it once")


def odd_number(what: str, value: Any, allowed: str, example: str, *, whole: bool = False) -> Problems:
    """A number in an interval such as "[0, 1)", "(0, inf)".

    >>> [error.what for value in (0.5, 1, True, float("nan")) for error in odd_number("alpha", value, "(0, 1)", "alpha=0.05")]
    ['alpha=1 is not in (0, 1)', 'alpha=True is no number', 'alpha=nan is not in (0, 1)']
    """
    low, high = (float(side) for side in allowed[1:-1].split(","))
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        yield DefinitionError(f"{what}={value!r} is no {'whole ' if whole else ''}number", hint=f"for example {example}")
        return
    beyond = value < low or value > high or (value == low and allowed[0] == "(") or (value == high and allowed[-1] == ")")
    if beyond or not isfinite(value):
        said = (
            f"is below {allowed[1:-1].split(',')[0]}"
            if high == float("inf") and allowed[0] == "[" and value < low
            else f"is not in {allowed}"
        )
        yield DefinitionError(f"{what}={value} {said}", hint=f"for example {example}")


def odd_duration(what: str, text: object, example: str, *, least: int = SECOND) -> Problems:
    """A duration of at least a second (or `least` microseconds), and at most a hundred years."""
    hint = f"write a number and a unit, for example {example}"
    try:
        length = duration(text) if isinstance(text, str) else None
    except DefinitionError:
        length = None
    if length is None:
        yield DefinitionError(f"{what}: {text!r} is not a duration", hint=hint)
    elif length < least:
        short = "less than a second" if least == SECOND and length else "no time at all"
        yield DefinitionError(f"{what}: {text!r} is {short}", hint=hint)
    elif length > LONGEST:
        yield DefinitionError(f"{what}: {text!r} is more than a hundred years", hint=hint)


def odd_type(what: str, value: object, of: type | tuple[type, ...], hint: str) -> Problems:
    """A value of another kind than is meant, such as a name instead of the thing itself."""
    if not isinstance(value, of):
        yield DefinitionError(f"{what} is {value!r}", hint=hint)
