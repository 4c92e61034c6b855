"""What no request may be, and how an error is told over HTTP and gRPC."""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from tidemill.core import ClientGone, DataError, DeadlineExceeded, DefinitionError, Refused, TidemillError, UnknownName, instant

MAX_BODY = 4 * 2**20
CLIENT_GONE = 499  # the status of a request whose client went away, as nginx has it: nobody is told
_CODES = (  # of HTTP, and gRPC's names
    (UnknownName, 404, "NOT_FOUND"),
    (Refused, 403, "PERMISSION_DENIED"),
    (DefinitionError, 400, "INVALID_ARGUMENT"),
    (DataError, 400, "INVALID_ARGUMENT"),
    (ClientGone, CLIENT_GONE, "CANCELLED"),
    (DeadlineExceeded, 504, "DEADLINE_EXCEEDED"),
)
_ELSE = (TidemillError, 503, "UNAVAILABLE")


def told(error: TidemillError) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer that tells an error."""
    return _of(error)[1], {"error": str(error), "detail": error.data()}


def status_of(error: TidemillError) -> str:
    """The name of gRPC's status that tells an error."""
    return _of(error)[2]


def _of(error: TidemillError) -> tuple[type[TidemillError], int, str]:
    return next((one for one in _CODES if isinstance(error, one[0])), _ELSE)


def check_origin(origin: str | None, host: str | None, path: str) -> None:
    """Raise Refused for a page of another site: a browser sends without asking what looks like a form, and names where it is from."""
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(f"a page of {origin} may not ask this server", where=path, hint="ask from a program, not from a page")


def too_large(most: int = MAX_BODY) -> DataError:
    """The error for a body that is larger than is taken."""
    return DataError(f"the body is larger than {most} bytes", hint="send fewer rows at once")


def zoned(text: str, name: str = "at") -> int:
    """An instant with its zone, of years that can be shown again. Raises DataError, which calls it by its name.

    >>> zoned("1970-01-01T01:00:00+01:00")
    0
    >>> zoned("0001-01-01T00:00:00Z")
    Traceback (most recent call last):
    tidemill.core.errors.DataError: at = '0001-01-01T00:00:00Z' is not of the years 2 to 9998
      next: write it like 2013-05-01T12:00:00Z
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 1 < moment.year < 9999:
        what = "is not a time with its zone" if moment is None or moment.tzinfo is None else "is not of the years 2 to 9998"
        raise DataError(f"{name} = {text!r} {what}", hint="write it like 2013-05-01T12:00:00Z")
    return instant(moment)
