"""How the time, the keys and the columns of a user's rows are read: SQL that gives the instant of a row, its key as a view spells it, and a
column in the type that a request has it in.
"""

import re
from collections.abc import Mapping
from math import inf
from zoneinfo import ZoneInfo

from tidemill.core import HOUR, DataError, DefinitionError
from tidemill.data import ZONED_NS, has_zone, instant_of, literal, quote, with_article, zoned_sql
from tidemill.features.declarations import Entity
from tidemill.features.keys import SINGLE, joined_sql, several_sql, stands_for_several

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT$|U?INTEGER$|FLOAT$|DOUBLE$|DECIMAL")
_TIME = re.compile(r"DATE$|TIMESTAMP")
_FRACTION = re.compile(r"FLOAT$|DOUBLE$|DECIMAL")
_TEXT = re.compile(r"VARCHAR$|ENUM")
_WHOLE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT$|U?INTEGER$")
NOTHING = '"NULL"'  # the type of a column without any value
_LOCAL = re.compile(r"DATE$|TIMESTAMP(_\w+)?$")
_PUT_BACK = (2 * HOUR, HOUR, HOUR // 2)  # by how much clocks are put back somewhere
ZONED = "TIMESTAMP WITH TIME ZONE"
HINT = "\n"  # what stands between an error and its hint where the engine raises it
ALIKE = "convert one of them, so that both spell a key alike"
_ZONE = 'say which zone they are in: timezone="Europe/Berlin"; or give {!r} with its offset'


def time_sql(what: str, column: str, kind: str, timezone: str) -> str:
    """SQL for the instant of a row's time; null for a text that tells none. Raises DataError for a column that holds none, or none of a
    zone where none is declared."""
    _check_zone(timezone)
    name = quote(column)
    if kind == NOTHING:
        return "CAST(NULL AS BIGINT)"
    if kind == ZONED_NS:
        name, kind = zoned_sql(name), ZONED
    if kind == ZONED:
        return f"epoch_us({name})"
    if _TEXT.match(kind):
        text = f"CAST({name} AS VARCHAR)"
        naive = _earliest(f"TRY_CAST({text} AS TIMESTAMP)", timezone) if timezone else "NULL"
        return f"CASE WHEN {has_zone(text)} THEN epoch_us(TRY_CAST({text} AS TIMESTAMPTZ)) ELSE {naive} END"
    if not _TIME.match(kind):
        hint = "convert it to times, for example with pandas.to_datetime(…, utc=True)"
        raise DataError(f"{column!r} of {what} is {with_article(kind)}, not a time", hint=hint)
    if not timezone:
        raise DataError(f"times of {column!r} in {what} have no time zone", hint=_ZONE.format(column))
    return _earliest(f"CAST({name} AS TIMESTAMP)", timezone)


def _earliest(local: str, timezone: str) -> str:
    """SQL for the instant of a local time: in an hour that comes twice the earlier one, so that nothing is seen that was not known yet."""
    instant = instant_of(local, timezone)
    if timezone == "UTC":
        return instant
    before = [f"({instant}) - {back}" for back in _PUT_BACK]
    cases = " ".join(f"WHEN timezone({literal(timezone)}, make_timestamptz({one})) = {local} THEN {one}" for one in before)
    return f"CASE {cases} ELSE {instant} END"


def no_time(what: str, column: str, row: int, text: str | None, *, naive: bool) -> DataError:
    """Why `time_sql` gives null for a row: there is nothing, a time without a zone (`naive`), or no time at all."""
    if text is None:
        return DataError(f"row {row} of {what} has no time in {column!r}", hint="drop such rows: nothing is known at no time")
    said = f"{text!r} in row {row} of {what} {'has no time zone' if naive else 'is no time'}"
    hint = _ZONE.format(column) if naive else "write times as 2024-01-31T12:00:00Z, or convert them first"
    return DataError(said, where=column, hint=hint)


def _check_zone(timezone: str) -> None:
    try:
        ZoneInfo(timezone or "UTC")
    except (KeyError, ValueError, OSError, TypeError) as error:
        hint = "write a name of the IANA database, for example Europe/Berlin"
        raise DefinitionError(f"timezone={timezone!r} is not a time zone", hint=hint) from error


def match_sql(what: str, entity: Entity, types: Mapping[str, str], of_view: Mapping[str, str]) -> str:
    """SQL for the key of a row as the text that a view has: `types` are those of the rows, `of_view` those of the view's dataset."""
    return joined_sql([f"CAST({_part(what, column, types[column], of_view[column])} AS VARCHAR)" for column in entity.keys])


def _part(what: str, column: str, kind: str, of_view: str) -> str:
    """A part of a key. Numbers and times of another type are equal where their values are: 7.0, as a column with gaps holds it, is 7."""
    name = quote(column)
    if kind == NOTHING:
        return "NULL"
    if kind == ZONED_NS:
        name, kind = zoned_sql(name), ZONED
    if (kind, of_view) == ("TIMESTAMP_NS", "TIMESTAMP"):  # what is finer is cut off, as Python does
        return f"CAST({name} AS TIMESTAMP)"
    if ZONED in (kind, of_view) and kind != of_view and _TIME.match(kind) and _TIME.match(of_view):
        return _unlike(what, column, kind, of_view)
    if kind == of_view or _TEXT.match(kind) or (_TEXT.match(of_view) and not _FRACTION.match(kind)):
        return name
    if any(family.match(kind) and family.match(of_view) for family in (_NUMBER, _TIME)):
        as_view = f"TRY_CAST({name} AS {of_view})"
        match = f"TRY_CAST({as_view} AS {kind}) = {name}"
        if (kind, of_view) == ("DOUBLE", "FLOAT"):  # 0.1 is the FLOAT that is written so
            match = f"({match} OR CAST(CAST({as_view} AS VARCHAR) AS DOUBLE) = {name})"
        if kind not in SINGLE or SINGLE[kind] >= SINGLE.get(of_view, inf):
            return f"CASE WHEN {match} THEN {as_view} END"
        said = stands_for_several(f"the key {column!r} of {what}", kind)
        wrong = literal(f"{said}{HINT}give it as whole numbers, or as texts")
        return f"CASE WHEN {several_sql(name, kind)} AND {as_view} IS NOT NULL THEN error({wrong}) WHEN {match} THEN {as_view} END"
    return _unlike(what, column, kind, of_view)


def _unlike(what: str, column: str, kind: str, of_view: str) -> str:
    """Of types of which no two values are equal. Raises DataError where there are values."""
    times = _TIME.match(kind) and _TIME.match(of_view)
    one, other = (f"{with_article(one)}{' with its zone' if times and one == ZONED else ''}" for one in (kind, of_view))
    said, name = f"the key {column!r} of {what} is {one}, the view's is {other}: no two of them are equal", quote(column)
    if kind in SINGLE:  # so pandas holds a column in which nothing is
        return f"CASE WHEN {name} IS NOT NULL AND NOT isnan({name}) THEN error({literal(said + HINT + ALIKE)}) END"
    raise DataError(said, hint=ALIKE)


def key_error(what: str, said: str) -> DataError | None:
    """What `match_sql` refuses of a row, from the engine's words; None for another error."""
    said, _, hint = said.removeprefix("Invalid Input Error: ").partition(HINT)
    return DataError(said, where=what, hint=hint) if hint else None


def column_sql(what: str, column: str, kind: str, of_request: str, timezone: str, places: str) -> str:
    """SQL for a column of rows in the type that a request has it in, as it is taken from a client too: a number that does not fit, a text
    that is to be a number, and a zone where the request has none, are refused. `places` is the zone of the request's own dataset."""
    name = quote(column)
    if kind == ZONED_NS:
        name, kind = zoned_sql(name), ZONED
    if kind == of_request:
        return name
    if of_request == ZONED and (_TIME.match(kind) or _TEXT.match(kind)):
        instant = time_sql(what, column, kind, timezone)
        odd = f"error({literal(f'{column!r} of {what} is no time with its zone: ')} || CAST({name} AS VARCHAR))"
        return f"CASE WHEN {name} IS NOT NULL AND ({instant}) IS NULL THEN {odd} ELSE make_timestamptz({instant}) END"
    if _TEXT.match(of_request) and (_TEXT.match(kind) or _WHOLE.match(kind)):
        return f"CAST({name} AS VARCHAR)"
    if _FRACTION.match(of_request) and _NUMBER.match(kind):
        return f"CAST({f'CAST({name} AS DOUBLE)' if of_request == 'FLOAT' else name} AS {of_request})"
    said = f"{column!r} of {what} is {with_article(kind)}, the request's is {with_article(of_request)}"
    if (_WHOLE.match(of_request) and _NUMBER.match(kind)) or (_LOCAL.match(of_request) and _LOCAL.match(kind)):
        return _exactly(name, kind, of_request, said)
    if _LOCAL.match(of_request) and _TEXT.match(kind):
        text = f"CAST({name} AS VARCHAR)"
        return f"CASE WHEN {has_zone(text)} THEN error({literal(f'{said} without a zone')}) ELSE CAST({text} AS {of_request}) END"
    if _LOCAL.match(of_request) and kind == ZONED and places == "UTC":
        return _exactly(name, kind, of_request, said)
    return f"CAST(CASE WHEN {name} IS NOT NULL THEN error({literal(f'{said}: convert it')}) END AS {of_request})"  # nothing is of any type


def _exactly(name: str, kind: str, other: str, said: str) -> str:
    """A value in another type, of which nothing is lost."""
    cast = f"TRY_CAST({name} AS {other})"
    lost = f"error({literal(f'{said}: no such is ')} || CAST({name} AS VARCHAR))"
    return f"CASE WHEN {name} IS NULL OR TRY_CAST({cast} AS {kind}) = {name} THEN {cast} ELSE {lost} END"
