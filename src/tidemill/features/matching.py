"""How the time and the keys of a user's rows are read: SQL that gives the instant of a row, and its key as a view spells it."""

import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from tidemill.core import DataError, DefinitionError
from tidemill.data import instant_of, literal, plain_type, quote
from tidemill.features.declarations import Entity
from tidemill.features.keys import joined_sql

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT$|U?INTEGER$|FLOAT$|DOUBLE$|DECIMAL")
_TIME = re.compile(r"DATE$|TIMESTAMP")
_FRACTION = re.compile(r"FLOAT$|DOUBLE$|DECIMAL")
_TEXT = re.compile(r"VARCHAR$|ENUM")
_ZONED = r":\d\d(\.\d+)?\s*(Z|z|[+-]\d\d(:?\d\d)?)\s*$"


def time_sql(what: str, column: str, kind: str, timezone: str) -> str:
    """SQL for the instant of a row's time. Raises DataError for a column that holds none, or none of a zone where none is declared."""
    _check_zone(timezone)
    name, hint = quote(column), f'say which zone they are in: timezone="Europe/Berlin"; or give {column!r} with its offset'
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_us({name})"
    if _TEXT.match(kind):
        text = f"CAST({name} AS VARCHAR)"
        naive = instant_of(f"CAST({text} AS TIMESTAMP)", timezone) if timezone else f"error({literal(_naive(what, column, hint))})::BIGINT"
        zoned = f"epoch_us(CAST({text} AS TIMESTAMPTZ))"
        return f"CASE WHEN {name} IS NULL THEN NULL WHEN regexp_matches({text}, {literal(_ZONED)}) THEN {zoned} ELSE {naive} END"
    if not _TIME.match(kind):
        hint = "convert it to times, for example with pandas.to_datetime(…, utc=True)"
        raise DataError(f"{column!r} of {what} is {plain_type(kind)}, not a time", hint=hint)
    if not timezone:
        raise DataError(_naive(what, column), hint=hint)
    return instant_of(f"CAST({name} AS TIMESTAMP)", timezone)


def _naive(what: str, column: str, hint: str = "") -> str:
    return f"times of {column!r} in {what} have no time zone" + (f"; {hint}" if hint else "")


def _check_zone(timezone: str) -> None:
    try:
        ZoneInfo(timezone or "UTC")
    except (KeyError, ValueError, OSError) as error:
        hint = "write a name of the IANA database, for example Europe/Berlin"
        raise DefinitionError(f"timezone={timezone!r} is not a time zone", hint=hint) from error


def match_sql(what: str, entity: Entity, types: Mapping[str, str], of_view: Mapping[str, str]) -> str:
    """SQL for the key of a row as the text that a view has: `types` are those of the rows, `of_view` those of the view's dataset."""
    return joined_sql([f"CAST({_part(what, column, types[column], of_view[column])} AS VARCHAR)" for column in entity.keys])


def _part(what: str, column: str, kind: str, of_view: str) -> str:
    """A part of a key. Numbers and times of another type are equal where their values are: 7.0, as a column with gaps holds it, is 7."""
    name = quote(column)
    if kind == of_view or _TEXT.match(kind) or (_TEXT.match(of_view) and not _FRACTION.match(kind)):
        return name
    if any(family.match(kind) and family.match(of_view) for family in (_NUMBER, _TIME)):
        as_view = f"TRY_CAST({name} AS {of_view})"
        return f"CASE WHEN TRY_CAST({as_view} AS {kind}) = {name} THEN {as_view} END"
    said = f"the key {column!r} of {what} is {plain_type(kind)}, the view's is {plain_type(of_view)}: no two of them are equal"
    raise DataError(said, hint="convert one of them, so that both spell a key alike")
