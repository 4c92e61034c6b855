"""The process of an isolated model: the only place where a pickle is read. Run by `isolated.py` as `python -m tidemill.models._apart`.

Comes in over a socket: the original with the sources that it needs, then rows. Goes out: their probabilities, or what went wrong.
"""

import fcntl
import importlib
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from tidemill.core import Floats
from tidemill.models._skops import loaded
from tidemill.models._wire import GREETING, QUESTION, REPLY, receive, send
from tidemill.models.fitted import score_of

LONGEST = 500  # letters of what went wrong


def main(line: int, life: int) -> None:
    """Load what comes over a socket, and answer until the other side goes."""
    _end_with(life)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what it holds is not written down when it dies
    warnings.simplefilter("ignore")
    with socket.socket(fileno=line) as asked:
        try:
            model, told = _greeted(asked)
        except BaseException as error:  # noqa: BLE001 – whatever reading it does, the other side is told
            _reply(asked, well=False, said=_text(error).encode())
            return
        _reply(asked, well=True, said=json.dumps(told).encode())
        while True:
            try:
                rows, columns, block = QUESTION.unpack(receive(asked, QUESTION.size))
                features = np.frombuffer(receive(asked, rows * columns * 8), dtype="<f8").reshape(rows, columns)
            except (EOFError, ConnectionError):
                return
            try:
                found = _in_blocks(model, features, block)
            except BaseException as error:  # noqa: BLE001 – a model that leaves the process has given no answer
                _reply(asked, well=False, said=_text(error).encode())
            else:
                _reply(asked, well=True, said=found.astype("<f8").tobytes())


def _end_with(life: int) -> None:
    """End this process when the other end of a pipe is closed, whatever it is doing, and those that its model began: the kernel sends the
    signal to the group."""
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # which ends it
    if select.select([life], [], [], 0)[0]:
        os._exit(0)


def _reply(line: socket.socket, *, well: bool, said: bytes) -> None:
    send(line, REPLY.pack(well, len(said)), said)


def _text(error: BaseException) -> str:
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}"[:LONGEST]


def _greeted(line: socket.socket) -> tuple[Any, dict[str, str]]:
    """The model, and the versions of its libraries that are others here than where it was made, None for one that is not there."""
    (length,) = GREETING.unpack(receive(line, GREETING.size))
    told = json.loads(receive(line, length))
    sources = json.loads(receive(line, told["sources"]))
    data = receive(line, told["data"])
    here = {name: _version(name) for name in told["libraries"]}
    sys.meta_path.insert(0, _Sources(sources))
    model = _read(told["format"], data)
    _single(model)
    return model, {name: found for name, found in here.items() if found != told["libraries"][name]}


def _version(name: str) -> str:
    """Of a distribution, or of Python; empty where it is not there."""
    try:
        return platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return ""


def _read(format: str, data: bytearray) -> Any:
    if format == "skops":
        return loaded(data)
    import pickle

    return pickle.loads(data)  # noqa: S301 – made by a run of this ledger, which knows its digest; nothing else lives in this process


def _single(model: Any) -> None:
    """One thread: with several, a forest adds its trees up in the order in which they are done."""
    params = getattr(model, "get_params", None)
    names = [name for name in params(deep=True) if name == "n_jobs" or name.endswith("__n_jobs")] if params else []
    if names:
        model.set_params(**dict.fromkeys(names, 1))


def _in_blocks(model: Any, features: Floats, block: int) -> Floats:
    """The answers (n,), asked `block` rows at a time: always as many, so that no answer depends on how many there are. 0: all at once."""
    if not block:
        return score_of(model, features)
    rows = len(features)
    padded = np.zeros((rows + -rows % block, features.shape[1]))
    padded[:rows] = features
    return np.concatenate([score_of(model, padded[start : start + block]) for start in range(0, len(padded), block)])[:rows]


class _Sources(MetaPathFinder, Loader):
    """Modules of a project by name, as they were when the model was trained."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._sources:
            return None
        package = any(name.startswith(f"{fullname}.") for name in self._sources)
        return ModuleSpec(fullname, self, is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        code: CodeType = compile(self._sources[module.__name__], f"<{module.__name__} of the version>", "exec")
        exec(code, vars(module))  # noqa: S102 – what the task itself ran when it trained


if __name__ == "__main__":
    importlib.invalidate_caches()
    main(int(sys.argv[1]), int(sys.argv[2]))
