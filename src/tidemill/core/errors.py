"""Every error that Tidemill raises on purpose: one root, each subclass also the fitting builtin.

An error says what is wrong, where, what was available, and what to do next. The command line prints these four parts and
exits with `code`; anything else that escapes is a bug and shows its traceback.
"""


class TidemillError(Exception):
    """Root of all errors raised on purpose.

    >>> print(UnknownName("no dataset 'flihgts'", where="flights.py:12", available=["flights"], hint="correct the name"))
    no dataset 'flihgts'
      where: flights.py:12
      available: flights
      next: correct the name
    """

    code = 1

    def __init__(self, what: str, *, where: str = "", available: list[str] | None = None, hint: str = "") -> None:
        self.what, self.where, self.available, self.hint = what, where, available or [], hint
        super().__init__(what)

    def __str__(self) -> str:
        shown = self.available[:12] + (["…"] if len(self.available) > 12 else [])
        parts = [("where", self.where), ("available", ", ".join(shown)), ("next", self.hint)]
        return "\n".join([self.what, *[f"  {name}: {text}" for name, text in parts if text]])

    def data(self) -> dict[str, object]:
        """The same parts for `--json`."""
        return {"error": type(self).__name__, "what": self.what, "where": self.where, "available": self.available, "next": self.hint}


class DefinitionError(TidemillError, ValueError):
    """A declaration, setting or query that cannot work."""

    code = 2


class UnknownName(TidemillError, LookupError):
    """A name or ref that nothing answers to."""

    code = 2


class Taken(TidemillError, ValueError):
    """A name that something else has already."""

    code = 2


class DataError(TidemillError, ValueError):
    """Data that is not what was declared: a missing column, a wrong type, a failed check."""

    code = 3


class MissingFile(TidemillError, FileNotFoundError):
    """A file or folder that should be there and is not."""

    code = 3


class Erased(MissingFile):
    """What was here was erased because somebody asked for it: its bytes are gone for good."""


class StoreError(TidemillError, OSError):
    """The records or blobs cannot be read or written: a full or read-only disk, a file that is away."""

    code = 4


class Damaged(StoreError):
    """Stored bytes are not what was written."""


class Busy(StoreError):
    """Another process holds what is needed: the project's writer, a port."""

    code = 5


class Refused(TidemillError, PermissionError):
    """Something that the rules do not allow: promotion without a passing verdict, a client's own time."""

    code = 6


class Unavailable(TidemillError, OSError):
    """Nobody can answer now."""

    code = 5


class DeadlineExceeded(TidemillError, TimeoutError):
    """The answer was not there when it was wanted."""

    code = 5


class ClientGone(DeadlineExceeded):
    """Who asked went away before the answer was there: nobody's fault here."""


class MissingExtra(TidemillError, ImportError):
    """An optional library is not installed; the hint names the extra."""

    code = 7


class NoExactForm(TidemillError, ValueError):
    """A fitted model has no compiled form that gives its answers."""


def store_error(error: OSError, where: str, what: str = "") -> StoreError:
    """What the disk refused, in words that help: where, and `what` was to be written there."""
    hints = {
        28: "free some space; nothing acknowledged was lost",
        30: "the disk is read-only: mount it for writing",
        13: "give this user the right to write",
        2: "the folder above it is not there, or cannot be made",
        17: "something else is in its place: name another folder",
        20: "a part of the path is a file: name a folder",
    }
    refused = f"cannot write{what and f' {what}'}: {error.strerror or error}"
    return StoreError(refused, where=where, hint=hints.get(error.errno or 0, "look at the disk"))
