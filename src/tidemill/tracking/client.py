"""Logging from a training: `with tidemill.run("flights") as run: run.log_metric("loss", 0.3, step=1)`.

A call appends to a segment on this machine's disk and returns; a companion process ships it to the project or server. So no call
waits for a server, none fails because one is away, and what was logged survives the end of the process. What was not shipped in
time is shipped by the next run or by `tidemill sync`. The clock is read here: a log call is where an event comes in.
"""

import os
import posixpath
import secrets
import socket
import struct
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar, Token
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakSet

import msgspec

from tidemill.core import DataError, DefinitionError, MissingFile, StoreError
from tidemill.ledger import user
from tidemill.tracking.capture import Sources, capture, digest_of
from tidemill.tracking.companion import Companion
from tidemill.tracking.limits import PARAM_VALUE, TAG_VALUE, check_experiment_name, check_key, check_path, check_run_id, clean
from tidemill.tracking.segment import (
    EVENT,
    METRIC,
    NAME,
    Captured,
    End,
    Event,
    File,
    Head,
    Input,
    Params,
    Segment,
    Tags,
    frame,
    pack_metric,
)
from tidemill.tracking.spool import attach, destination_of, spool_of

WAIT = 10.0  # seconds that the end of a run waits for its rows to be in the ledger
_active: ContextVar[tuple["ActiveRun", ...]] = ContextVar("active", default=())
_clock = time.time_ns
_open: WeakSet["ActiveRun"] = WeakSet()
T = TypeVar("T")


def run(
    experiment: str = "",
    *,
    name: str = "",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    to: str | Path | None = None,
    id: str = "",
    parent: "ActiveRun | None" = None,
    captured: bool = True,
    system_metrics: float = 10.0,
    wait: float = WAIT,
) -> "ActiveRun":
    """A new run of an experiment, or further logging to the run of `id`.

    `to` is a project's folder or a server's address (`http://…`); by default `TIDEMILL_URI`, then the project around the working
    folder, then the working folder itself, which becomes a project. A run inside the `with` of another is its child. `captured`
    keeps the code with what is not committed, the environment, the seeds, the command and the host; `system_metrics` is the time
    between two looks at processor, memory and GPU, in seconds (0: none). Raises DataError for a name that cannot be one.

    >>> import tempfile
    >>> with run("demo", to=tempfile.mkdtemp(), captured=False, params={"rate": 0.1}) as one:
    ...     one.log_metric("loss", 0.5, step=1)
    """
    _refuse_in_declarations()
    around = _active.get()
    parent = parent or (around[-1] if around else None)
    if experiment:
        check_experiment_name(experiment)
    head = Head(check_run_id(id) if id else uuid.uuid4().hex, destination_of(to), _clock() // 1000, experiment, clean(name)[:TAG_VALUE])
    head.who, head.host, head.pid, head.first = clean(user()), socket.gethostname(), os.getpid(), not id
    found = ActiveRun(head, wait, system_metrics)
    if parent:
        found.set_tag("mlflow.parentRunId", parent.id)
    if captured:
        found.keep(capture() if head.first else None, Sources())
    if tags:
        found.set_tags(tags)
    if params:
        found.log_params(params)
    return found


def _refuse_in_declarations() -> None:
    project = sys.modules.get("tidemill.project")  # not imported for this: it takes longer than all the rest, and who imports files has it
    file = project.importing() if project else None
    if project and file:
        what = f"{file.name} begins a run while the project's files are imported to learn what they declare"
        raise DefinitionError(what, hint=project.SCRIPT)


class ActiveRun:
    """A run that this process logs to. Every method may be called from any thread, and from a forked process; none waits."""

    def __init__(self, head: Head, wait: float, system_metrics: float) -> None:
        self.id, self.head, self._wait = head.run, head, wait
        self._params: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._files, self._folders = set[str](), set[str]()  # paths of the artifacts that were logged here
        self._naming = RLock()
        self._sources: Sources | None = None
        self._unkept = ""
        self._token: Token[tuple[ActiveRun, ...]] | None = None
        self._segment = self._begin(head)
        self._append = self._segment.append
        self._companion = Companion.of(self._segment.path.parent)
        self._companion.tell(head.run, system_metrics if head.first else 0.0)
        _open.add(self)

    def _begin(self, head: Head) -> Segment:
        return Segment(spool_of(head.to) / f"{head.run}-{secrets.token_hex(4)}.seg", head)

    def _forked(self) -> None:
        """In a forked process: its own segment, made when it logs, since numbers of names and the lock are one process's."""
        self._numbers, self._naming, beginning = {}, RLock(), RLock()
        self._segment.abandon()

        def first(data: bytes) -> bool:
            with beginning:  # several threads may log first
                if self._append is first:
                    begin()
            return self._append(data)

        def begin() -> None:
            self._segment = self._begin(msgspec.structs.replace(self.head, at=_clock() // 1000, pid=os.getpid(), first=False))
            self._append = self._segment.append

        self._append = first

    def __repr__(self) -> str:
        return f"ActiveRun({self.head.experiment or 'Default'}: {self.id} → {self.head.to})"

    def _repr_html_(self) -> str:
        from tidemill.tracking.plots import table

        about = {"experiment": self.head.experiment or "Default", "run": self.id, "goes to": self.head.to}
        return table(["", ""], [*about.items(), *self._params.items()])

    # ── metrics ─────────────────────────────────────────────────────────────────────────────────────────────────

    def log_metric(self, key: str, value: float, step: int = 0) -> None:
        """Append one value at this moment. Raises DataError for a value that is no number."""
        try:
            self._append(pack_metric(METRIC, self._numbers[key], _clock() // 1000, step, value))
        except KeyError:
            if self._name(key):
                self.log_metric(key, value, step)
        except (struct.error, TypeError, ValueError) as error:
            raise _no_number(key, value, step) from error

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Append one value of each of several metrics, at one moment; all or nothing."""
        at, frames = _clock() // 1000, []
        for key, value in values.items():
            if key not in self._numbers and not self._name(key):
                continue
            try:
                frames.append(pack_metric(METRIC, self._numbers[key], at, step, value))
            except (struct.error, TypeError, ValueError) as error:
                raise _no_number(key, value, step) from error
        self._append(b"".join(frames))

    def _name(self, key: str) -> bool:
        """Give a metric's name its number in the segment; False when a disk that refuses has lost it."""
        check_key(key)
        with self._naming:
            if key not in self._numbers:
                number = len(self._numbers)
                if not self._append(frame(NAME, [number, key])):
                    return False
                self._numbers[key] = number
        return True

    def progress(self, items: Iterable[T], *, total: int | None = None, label: str = "") -> Iterator[T]:
        """Go through items (epochs, batches) with a bar on the terminal or in the notebook, which shows the time left."""
        from rich.console import Console
        from rich.progress import track

        console, label = Console(stderr=True), label or self.head.name or "run"
        quiet = not (console.is_terminal or console.is_jupyter)
        yield from track(items, description=label, total=total, console=console, transient=True, disable=quiet)

    # ── everything else ─────────────────────────────────────────────────────────────────────────────────────────

    def _log(self, event: Event) -> None:
        self._append(frame(EVENT, event))

    def log_param(self, key: str, value: Any) -> None:
        """Write a parameter once, as text; raises DataError when it already has another value."""
        self.log_params({key: value})

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Write parameters once, as text (at most 6,000 characters); raises DataError when one already has another value."""
        texts = {check_key(str(key)): clean(str(value))[:PARAM_VALUE] for key, value in values.items()}
        for key, text in texts.items():
            if self._params.get(key, text) != text:
                raise DataError(f"parameter {key!r} is {self._params[key]!r} and cannot become {text!r}", hint="log it under another name")
        self._params |= texts
        self._log(Params(texts))

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag, in place of what was there."""
        self.set_tags({key: value})

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags, in place of what was there (text of at most 8,000 characters)."""
        self._log(Tags({check_key(str(key)): clean(str(value))[:TAG_VALUE] for key, value in values.items()}))

    def log_input(self, what: Any, *, name: str = "", context: str = "training") -> None:
        """Say what data the run reads: a training set or another thing of a project that has a ref, a file, or a folder.

        A file is told by its path and the digest of its content. Raises MissingFile.
        """
        ref = getattr(what, "ref", None)
        if ref is not None:
            self._log(Input(name or ref.name, ref.digest, str(ref), "tidemill", context, str(ref)))
            return
        path = Path(what)
        if not path.exists():
            raise MissingFile("there is no such file", where=str(path), hint="give a path, or a thing of a project that has a ref")
        self._log(Input(clean(name or path.name), digest_of(path), clean(str(path.resolve())), "local", clean(context)))

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

    def log_artifact(self, file: str | Path, folder: str = "") -> None:
        """Keep a copy of a file as it is now, in a folder of the run's artifacts, in place of what was logged there before.

        Raises MissingFile, StoreError, and DataError for a path that cannot be: one where this run has a folder, or below a file of it.
        """
        file = Path(file)
        if not file.is_file():
            hint = "`log_artifacts` keeps a whole folder" if file.is_dir() else ""
            raise MissingFile("there is no such file", where=str(file), hint=hint)
        self._attach(file, folder, file.name)

    def log_artifacts(self, where: str | Path, folder: str = "") -> None:
        """Keep a copy of every file below a folder."""
        where = Path(where)
        if not where.is_dir():
            raise MissingFile("there is no such folder", where=str(where))
        for file in sorted(path for path in where.rglob("*") if path.is_file()):
            self._attach(file, folder, file.relative_to(where).as_posix())

    def log_text(self, text: str, path: str) -> None:
        """Keep a text as a file of the run's artifacts."""
        self._attach(text.encode(), "", path)

    def log_figure(self, figure: Any, path: str) -> None:
        """Keep a figure of matplotlib (`savefig`) or plotly (`write_html`) as a file of the run's artifacts."""
        from io import BytesIO

        if hasattr(figure, "savefig"):
            data = BytesIO()
            figure.savefig(data, format=Path(path).suffix.lstrip(".") or "png")
            self._attach(data.getvalue(), "", path)
        elif hasattr(figure, "to_html"):
            self._attach(figure.to_html().encode(), "", path)
        else:
            raise DataError(f"{type(figure).__name__} is no figure", available=["figures of matplotlib", "figures of plotly"])

    def _attach(self, content: Path | bytes, folder: str, path: str) -> None:
        path = posixpath.normpath("/".join(part for part in (clean(folder).strip("/"), clean(path).strip("/")) if part))
        path = check_path(path)
        folders = {path[:at] for at, sign in enumerate(path) if sign == "/"}
        if not path or path in self._folders or folders & self._files:
            what = next((f"'{one}' is a file of this run" for one in folders & self._files), f"'{path or '.'}' is a folder of this run")
            raise DataError(f"Invalid path: {what}", where=path, hint="give the file another name")
        self._log(File(path, attach(self._segment.path, content)))
        self._files.add(path)
        self._folders |= folders

    def keep(self, found: Captured | None, sources: Sources) -> None:
        """Keep what was captured, and from now on the source files that are loaded."""
        if found:
            self._log(found)
        self._sources = sources
        self._keep_sources()

    def _keep_sources(self) -> None:
        try:
            for path, content in self._sources.new() if self._sources else ():
                self._attach(content, "code", path)
        except (StoreError, DataError) as error:  # what is captured without a call fails nobody
            self._unkept = f"its code was not kept: {error.what}. "

    # ── its end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        self._token = _active.set((*_active.get(), self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            _active.reset(self._token)
            self._token = None
        interrupted = kind is not None and not issubclass(kind, Exception)
        self.end("KILLED" if interrupted else "FAILED" if kind else "FINISHED", error=f"{kind.__name__}: {error}" if kind else "")

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", *, error: str = "") -> None:
        """Close the run (FINISHED, FAILED or KILLED) and wait a while for its rows to be in the ledger; a server that is away is not
        waited for. Calling it again does nothing."""
        if self not in _open:
            return
        _open.discard(self)
        self._keep_sources()
        self._log(End(_clock() // 1000, status, error[:2000]))
        self._segment.close()
        self._say(self._companion.wait(self.id, self._segment.path, self._wait))

    def _say(self, why: str) -> None:
        why = self._unkept + why
        if self._segment.dropped:
            lost = f"the disk refused {self._segment.dropped} log calls ({self._segment.refused}), which are lost"
            why = f"{lost}; {why.removeprefix('; ')}" if why else lost
        if why:
            sys.stderr.write(f"tidemill: run {self.id}: {why}\n")


def note_input(what: Any) -> None:
    """Tell the run that is open here that it reads something of the project."""
    for run in _active.get()[-1:]:
        run.log_input(what)


def _no_number(key: str, value: Any, step: Any) -> DataError:
    return DataError(f"metric {key!r} at step {step!r} is {value!r}: not a number at a whole step", hint="log texts with `set_tag`")


def _forked() -> None:
    for one in list(_open):
        one._forked()


os.register_at_fork(after_in_child=_forked)
