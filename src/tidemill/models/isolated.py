"""A model that has no exact form, answering from a process of its own: nothing of it is loaded here, neither a pickle nor its library.

Comes in: its bytes as a run of this ledger made them, and rows. Goes out: their probabilities. The process ends with the last who holds
the model, and with this one, however that ends; it is begun anew where it dies, and killed where it hangs.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from tidemill.core import Damaged, DataError, Floats, MissingExtra, Unavailable, digest_bytes, digest_value
from tidemill.models._wire import GREETING, QUESTION, REPLY, receive, send
from tidemill.models.compiled import Predictor
from tidemill.models.pace import Pace
from tidemill.models.signature import Signature

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds for each started hundred rows, of who can wait
HASTE = 1.0  # seconds after which a process that does not answer is ended, even where nobody waits as long
START = 60.0  # seconds until a model must be loaded
SOUND = 30.0  # seconds that a process must have lived for its end to be no habit
PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds
HUNDRED = 100
MOST = 10_000  # rows of one question
KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
ONE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT")


@dataclass(frozen=True)
class Original:
    """What a process of its own loads: bytes in a `format` (skops or pickle), the text of modules of the project, the versions with which
    it was made, and with how many rows it is asked each time (0: any number). `label` is what it is called, `digest` that of the bytes when
    they were made: no others are loaded."""

    data: bytes | memoryview = field(repr=False)
    format: str
    sources: Mapping[str, str] = field(repr=False)
    label: str
    library: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    block: int = 0
    digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.digest or digest_bytes(self.data))

    @cached_property
    def whole(self) -> str:
        """The digest of all that is loaded."""
        return digest_value({"data": self.digest, "sources": dict(self.sources)})


class Isolated(Predictor):
    """What asks a model in its process. All who ask the same model in this process share one."""

    isolated = True

    def __init__(self, original: Original, signature: Signature) -> None:
        self.signature, self.original = signature, original
        self._process = _PROCESSES.get(original.whole) or _PROCESSES.setdefault(original.whole, _Process(original))

    @property
    def platform(self) -> str:
        """As the inference protocol names it."""
        return f"{self.original.library}_{self.original.format}"

    @cached_property
    def pace(self) -> Pace:
        """Never quick: who asks it waits for another process."""
        return _Waited()

    def predict_within(self, features: Floats, seconds: float) -> Floats:
        """As `predict`, of who does not wait: Unavailable while its process is away; one that takes longer than so many seconds for each
        started hundred rows, or a second where that is less, is ended."""
        return self._parts(features, self.original.block, max(HASTE, seconds), wait=False)

    def ask(self, features: Floats, block: int) -> Floats:
        """The probabilities (n,), asked `block` rows at a time."""
        try:
            return self._parts(features, block, PATIENCE, wait=True)
        except Unavailable:  # who can wait asks once more, when it is back
            return self._parts(features, block, PATIENCE, wait=True)

    def _scores(self, features: Floats) -> Floats:
        return self.ask(features, self.original.block).reshape(-1, 1)

    def _parts(self, features: Floats, block: int, seconds: float, *, wait: bool) -> Floats:
        whole = np.ascontiguousarray(features, dtype="<f8")
        if not len(whole):
            return np.empty(0)
        parts = [whole[start : start + MOST] for start in range(0, len(whole), MOST)]
        return np.concatenate([self._process.ask(part, block, seconds * -(-len(part) // HUNDRED), wait=wait) for part in parts])


@dataclass(frozen=True)
class Kept:
    """The original of a model, why it has no compiled form, the evidence that it answers as where it was trained, and what answers."""

    predictor: Isolated = field(repr=False)
    why: str
    rounds: int
    parity: dict[str, Any]

    @property
    def signature(self) -> Signature:
        return self.predictor.signature

    @property
    def library(self) -> str:
        return self.predictor.original.library


class _Waited(Pace):
    """The pace of a model that is never done before somebody else could be asked."""

    def within(self, most: float) -> bool:
        return False


class _Process:
    """The process of one model: begun when it is first asked, and anew, after a pause, when it has ended."""

    def __init__(self, original: Original) -> None:
        self._original = original
        self._turn, self._lock = Lock(), Lock()  # one question at a time; of what follows
        self._begun: Future[_Child] | None = None
        self._ends, self._again = 0, 0.0  # in a row; when one that did not start is tried again
        self._held: list[_Child] = []
        weakref.finalize(self, _end, self._held)

    def ask(self, features: Floats, block: int, seconds: float, *, wait: bool) -> Floats:
        """The probabilities of rows. Raises DataError for what the model itself refuses, Unavailable where its process is away or ends."""
        child = self._child(wait=wait)
        with self._next(seconds):
            try:
                well, said = child.ask(features, block, time.monotonic() + seconds)
            except (OSError, EOFError) as error:
                why = f"did not answer {len(features)} rows within {seconds:g} s" if isinstance(error, TimeoutError) else "ended"
                self._lost(child, why)
                raise Unavailable(
                    f"the process of {self._original.label} {why}", hint="it is begun anew; look at the server's log"
                ) from error
        if not well:
            raise DataError(f"{self._original.label} fails: {said.decode(errors='replace')}", hint="send rows that it takes")
        found = np.frombuffer(said, dtype="<f8")
        if len(found) != len(features):
            raise DataError(f"{self._original.label} gives {len(found)} numbers for {len(features)} rows")
        return found

    @contextmanager
    def _next(self, seconds: float) -> Iterator[None]:
        if not self._turn.acquire(timeout=seconds):
            raise Unavailable(f"the process of {self._original.label} answers others", hint="ask again")
        try:
            yield
        finally:
            self._turn.release()

    def _child(self, *, wait: bool) -> "_Child":
        with self._lock:
            begun, pause = self._begun, max(0.0, self._again - time.monotonic())
            failed = begun.exception() if begun and begun.done() else None
            if begun is None or (failed and (not pause or (wait and pause <= HASTE and isinstance(failed, Unavailable)))):
                begun = self._begin(pause)  # who can wait gets what comes of another, where that may be better
        if not wait and not begun.done():
            raise Unavailable(f"the process of {self._original.label} is being started")
        if (error := begun.exception()) is not None:
            raise error.with_traceback(None)  # it would grow with each who asks
        return begun.result()

    def _begin(self, pause: float) -> "Future[_Child]":
        self._begun = begun = Future[_Child]()
        Thread(target=_start, args=(weakref.ref(self), begun, pause), name="isolated", daemon=True).start()
        return begun

    def start(self, begun: "Future[_Child]") -> None:
        """Begin a child."""
        try:
            child = _Child(self._original)
        except Exception as error:  # noqa: BLE001 – who asks is told
            self._ends += 1
            self._again = time.monotonic() + _pause(self._ends + 1)
            begun.set_exception(error)
            return
        self._held[:] = [child]
        begun.set_result(child)

    def _lost(self, child: "_Child", why: str) -> None:
        """Begin anew after a child that has ended, or is ended here."""
        code = child.end()
        with self._lock:
            if self._begun is None or not self._begun.done() or self._begun.exception() or self._begun.result() is not child:
                return  # another thread was first
            self._ends = 1 if time.monotonic() - child.since > SOUND else self._ends + 1
            pause = _pause(self._ends)
            log.warning("isolated=%s %s exit=%s started_again_in=%s", self._original.label, why.replace(" ", "_"), code, f"{pause:g}s")
            self._begin(pause)


def _pause(ends: int) -> float:
    """Seconds before a process is begun that has ended so many times in a row.

    >>> [_pause(ends) for ends in (1, 2, 3, 20)]
    [0.0, 0.25, 0.5, 30.0]
    """
    return 0.0 if ends <= 1 else min(LONGEST_PAUSE, PAUSE * 2.0 ** (ends - 2))


def _start(process: "weakref.ref[_Process]", begun: "Future[_Child]", pause: float) -> None:
    """Begin a child after a pause, if anybody holds the model by then."""
    time.sleep(pause)
    if (found := process()) is not None:
        found.start(begun)


def _end(held: "list[_Child]") -> None:
    for child in held:
        child.end()


class _Child:
    """A process that runs, with its model loaded; `since` is when, on the monotonic clock."""

    def __init__(self, original: Original) -> None:
        """Raises DataError where the model cannot be loaded, with what is otherwise here than where it was made, and Damaged where its
        bytes, which may lie in a file, are others by now."""
        if digest_bytes(original.data) != original.digest:
            raise Damaged(f"the original of {original.label} is not what was written", hint="restore it from a backup")
        self._line, theirs = socket.socketpair()
        heard, self._life = os.pipe()
        call = [sys.executable, "-P", "-m", "tidemill.models._apart", str(theirs.fileno()), str(heard)]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    call,
                    pass_fds=(theirs.fileno(), heard),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,
                )
        finally:
            os.close(heard)
        self.since = time.monotonic()
        try:
            self._greet(original, time.monotonic() + START)
        except BaseException:
            self.end()
            raise

    def ask(self, features: Floats, block: int, end: float) -> tuple[bool, bytearray]:
        """Whether it went well, and the numbers as bytes, or what went wrong. Raises OSError and EOFError where the process is gone."""
        send(self._line, QUESTION.pack(*features.shape, block), features.tobytes(), end=end)
        return self._reply(end)

    def _reply(self, end: float) -> tuple[bool, bytearray]:
        well, size = REPLY.unpack(receive(self._line, REPLY.size, end=end))
        return well, receive(self._line, size, end=end)

    def _greet(self, original: Original, end: float) -> None:
        sources = json.dumps(dict(original.sources)).encode()
        told = {"format": original.format, "sources": len(sources), "data": len(original.data), "libraries": dict(original.libraries)}
        plain = json.dumps(told).encode()
        try:
            send(self._line, GREETING.pack(len(plain)), plain, sources, original.data, end=end)
            well, said = self._reply(end)
        except (OSError, EOFError) as error:
            why = "it is not ready in time" if isinstance(error, TimeoutError) else f"it ended with code {self.end()}"
            raise Unavailable(f"the process of {original.label} does not start: {why}", hint="look at the server's log") from error
        if not well:
            raise _unloadable(original, said.decode(errors="replace"))
        other = json.loads(said)
        if other:
            log.warning("isolated=%s made_with=%s here=%s", original.label, _named(original.libraries, other), _named(other, other))

    def end(self) -> int:
        """Kill it, with the processes that its model began; the code that it ended with."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own
        code = self._process.wait()
        self._line.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        return code


def _named(versions: Mapping[str, str], only: Mapping[str, str]) -> str:
    return ",".join(f"{name}:{versions[name] or 'none'}" for name in only)


def _unloadable(original: Original, said: str) -> Exception:
    made = ", ".join(f"{name} {version}" for name, version in original.libraries.items() if name in ("python", "scikit-learn"))
    what = f"the original of {original.label} cannot be loaded: {said}"
    hint = f"it was made with {made or 'other versions'}: install these, or train it again here"
    return MissingExtra(what, hint=hint) if "ModuleNotFoundError" in said else DataError(what, hint=hint)


def _environment() -> dict[str, Any]:
    """What a process needs to find its libraries, on one thread; nothing of what the server is told, such as its secrets."""
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    return found | dict.fromkeys(ONE, "1") | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


_PROCESSES = weakref.WeakValueDictionary[str, _Process]()  # by model, as long as somebody holds it
