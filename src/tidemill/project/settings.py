"""`tidemill.toml`: one table of settings, each with its default and a line of help; an unknown one is refused."""

import tomllib
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tidemill.core import DefinitionError, MissingFile, duration, instant, odd_name, show
from tidemill.store import is_address

FILE = "tidemill.toml"
SHARED = "shared."
PLACES = {"records", "blobs"}

SETTINGS: dict[str, tuple[type | tuple[type, ...], Any, str]] = {
    "project.name": (str, "", "name of the project (required)"),
    "project.objective": (str, "", "what it is for, in a sentence"),
    "project.owner": (str, "", "who answers for it"),
    "project.positive": (str, "true", "what the positive class is called: the report shows the share of it"),
    "project.timezone": (str, "UTC", "time zone of dates in this file, of months in reports, and of the loop's midnight"),
    "store.records": (str, ".tidemill/records.db", "the ledger: a SQLite file, or postgresql://user@host/database?schema=name"),
    "store.blobs": (str, ".tidemill/blobs", "the folder of blobs, of this project alone"),
    "store.online": (str, ".tidemill/online", "the online store of features: a folder, or redis://host:6379/0"),
    "store.online_gigabytes": ((int, float), 16, "how large the online store in a folder may become; only what it holds takes room"),
    "shared.NAME": (
        (str, dict),
        "",
        'a project whose shared views are used here, under a name of yours: its folder, or {records = "…", blobs = "…"}',
    ),
    "retention.deleted": (str, "30d", "for how long deleted runs, models and experiments can be restored; then `tidemill gc` deletes them"),
    "retention.unreferenced": (
        str,
        "",
        "`tidemill gc` deletes runs that ended so long ago and to which nothing refers; empty: never",
    ),
    "replay.train_until": ((date, str), "", "the replay trains its first model on what was known then"),
    "replay.end": ((date, str), "", "the replay ends here"),
    "serve.host": (str, "127.0.0.1", "address that `tidemill up` binds"),
    "serve.port": (int, 8642, "port that `tidemill up` binds"),
    "serve.grpc_port": ((int, str), "", "port at which `tidemill up` speaks gRPC too; empty: it does not"),
    "serve.most_under_way": (int, 512, "requests under way at once; what comes beyond is turned away (503)"),
    "serve.deadline": (str, "60s", "the most that an answer may take; then it is 504, also where the client says that it waits longer"),
    "serve.access_log": (bool, False, "whether each request is a line of the server's log"),
    "serve.log_json": (bool, False, "whether the server's log is JSON; it is with --json"),
    "serve.workers": ((int, str), 1, 'processes that answer at one port: a number, or "cores"'),
    "serve.traces": (
        str,
        "",
        "OpenTelemetry's collector, http://127.0.0.1:4318; empty: that of the environment, if any",
    ),
    "serve.client_time": (bool, False, "whether a request may state its own prediction time"),
    "serve.log_keep": (str, "", "for how long answers and feedback are kept once they are in their tables; empty: for ever"),
    "serve.compact_megabytes": (
        (int, float),
        64,
        "`tidemill up` moves the logs of answers and of feedback into their tables when one is so large; 0: never by itself",
    ),
    "serve.compact_after": (str, "1h", "and when the first line of one is so old"),
    "serve.log_features": ((int, float), 1.0, "the share of answers whose features are written to the log too, from 0 to 1"),
}


@dataclass(frozen=True)
class Settings:
    """The settings of one project folder; `settings["serve.port"]`."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name, SETTINGS[name][1])

    def path(self, name: str) -> Path:
        """A setting that is a path, from the project's folder."""
        return self.folder / str(self[name])

    @property
    def records(self) -> Path | str:
        """Where the ledger lies: a file, or the address of a database."""
        return self.place(str(self["store.records"]))

    def place(self, text: str) -> Path | str:
        """Where records lie that a text names: a file, from the project's folder, or the address of a database."""
        return text if is_address(text) else self.folder / text

    @property
    def shared(self) -> dict[str, Any]:
        """The projects whose shared views are used here, by their name: a folder, or the places of records and blobs."""
        return {name.removeprefix(SHARED): value for name, value in self.values.items() if name.startswith(SHARED)}

    @property
    def online(self) -> Path | str:
        """Where the online store lies: a folder, or the address of a Redis."""
        place = str(self["store.online"])
        return place if place.startswith(("redis:", "rediss:", "unix:")) else self.path("store.online")

    def instant(self, name: str) -> int:
        """A setting that is a time; raises DefinitionError when it is not set."""
        if not self[name]:
            raise DefinitionError(f"{name} is not set", where=str(self.folder / FILE), hint=f"add it: {SETTINGS[name][2]}")
        return instant(self[name], self["project.timezone"])


def read_settings(folder: Path) -> Settings:
    """The settings of a folder; raises MissingFile and DefinitionError."""
    path = folder / FILE
    if not path.is_file():
        hint = "go to a project's folder, or make one: `tidemill init data.csv`"
        raise MissingFile(f"no {FILE} here", where=str(folder), hint=hint)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DefinitionError(f"{FILE} cannot be read: {error}", where=str(path)) from None
    loose = {table: items for table, items in tables.items() if not isinstance(items, dict)}
    values = {f"{table}.{key}": value for table, items in tables.items() if table not in loose for key, value in items.items()} | loose
    for name, value in values.items():
        _check(name, value, path)
    for name in ("serve.port", "serve.grpc_port"):
        port = values.get(name, "")
        if port != "" and not (isinstance(port, int) and 0 <= port < 2**16):
            hint = "choose one of 0 to 65535; 0 takes a free one"
            raise DefinitionError(f"{name} = {port!r} is no port", where=str(path), hint=hint)
    if not 0 < values.get("store.online_gigabytes", 1) <= 2**16:
        what = f"store.online_gigabytes = {values['store.online_gigabytes']} is no size"
        raise DefinitionError(what, where=str(path), hint="a number of gigabytes, above 0 and up to 65536")
    if values.get("serve.most_under_way", 1) < 1:
        what = f"serve.most_under_way = {values['serve.most_under_way']} lets no request in"
        raise DefinitionError(what, where=str(path), hint="a whole number from 1")
    many = values.get("serve.workers", 1)
    if many != "cores" and not (isinstance(many, int) and many >= 1):
        raise DefinitionError(
            f"serve.workers = {many!r} is no number of processes", where=str(path), hint='a whole number from 1, or "cores"'
        )
    if not 0 <= values.get("serve.log_features", 1) <= 1:
        what = f"serve.log_features = {values['serve.log_features']} is no share"
        raise DefinitionError(what, where=str(path), hint="from 0, which writes none, to 1, which writes those of every answer")
    if values.get("serve.compact_megabytes", 0) < 0:
        what = f"serve.compact_megabytes = {values['serve.compact_megabytes']} is no size"
        raise DefinitionError(what, where=str(path), hint="a number of megabytes; 0: `tidemill up` does not compact")
    if not values.get("project.name"):
        raise DefinitionError("the project has no name", where=str(path), hint='add [project] name = "…"')
    try:
        ZoneInfo(values.get("project.timezone", "UTC"))
    except (KeyError, ValueError, OSError):
        what = f"project.timezone = {values['project.timezone']!r} is not a time zone"
        raise DefinitionError(what, where=str(path), hint="write a name of the IANA database, for example Europe/Berlin") from None
    settings = Settings(folder.resolve(), values)
    _check_shared(settings, path)
    _check_replay(settings, path)
    for name in ("retention.deleted", "retention.unreferenced", "serve.deadline", "serve.log_keep", "serve.compact_after"):
        try:
            duration(str(settings[name] or "0s"))
        except DefinitionError as error:
            raise DefinitionError(f"{name}: {error.what}", where=str(path), hint=error.hint) from None
    if not duration(settings["serve.deadline"]):
        raise DefinitionError("serve.deadline = '0s' lets no answer be in time", where=str(path), hint="for example 30s")
    return settings


def _check_shared(settings: Settings, path: Path) -> None:
    """The projects that are named: each by a name that can stand in that of a dataset, with a folder or both places of its store."""
    for name, place in settings.shared.items():
        hint = f'write {name} = "../folder", or {name} = {{records = "postgresql://…?schema={name}", blobs = "/folder/of/blobs"}}'
        for problem in odd_name("shared project", name):
            problem.where = str(path)
            raise problem
        texts = list(place.values()) if isinstance(place, dict) else [place]
        if isinstance(place, dict) and set(place) != PLACES:
            wrong = min(place.keys() ^ PLACES)
            what = f"shared.{name} {'has no' if wrong in PLACES else 'knows no'} {wrong!r}"
            raise DefinitionError(what, where=str(path), available=sorted(PLACES), hint=hint)
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DefinitionError(f"shared.{name} names no place", where=str(path), hint=hint)
        if isinstance(place, str) and is_address(place):
            raise DefinitionError(f"shared.{name} is an address alone", where=str(path), hint=f"its blobs lie elsewhere: {hint}")
        if isinstance(place, str) and (settings.folder / place).resolve() == settings.folder:
            raise DefinitionError(f"shared.{name} is this project itself", where=str(path), hint="name another project, or drop it")


def _check_replay(settings: Settings, path: Path) -> None:
    """The dates of the replay that are set: each is a time, and the end comes last."""
    times = {}
    for name in ("replay.train_until", "replay.end"):
        try:
            times[name] = settings.instant(name) if settings[name] else None
        except (DefinitionError, ValueError):
            hint = "write a date, 2030-01-31, or a time with its offset, 2030-01-31T12:00:00Z"
            raise DefinitionError(f"{name} = {settings[name]!r} is not a time", where=str(path), hint=hint) from None
    start, end = times.values()
    if start is not None and end is not None and end <= start:
        what = f"replay.end = {show(end)} is not after replay.train_until = {show(start)}"
        raise DefinitionError(what, where=str(path), hint="the clock of the replay runs from train_until to end")


def _check(name: str, value: Any, path: Path) -> None:
    known = f"{SHARED}NAME" if name.startswith(SHARED) else name
    if known not in SETTINGS:
        raise DefinitionError(f"there is no setting {name!r}", where=str(path), available=sorted(SETTINGS))
    kind, _, meaning = SETTINGS[known]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DefinitionError(f"{name} = {value!r} has the wrong type", where=str(path), hint=meaning)
    if isinstance(value, datetime) and value.tzinfo is None:
        raise DefinitionError(f"{name} = {value} has no time zone", where=str(path), hint="write a date, or a time with its offset")
