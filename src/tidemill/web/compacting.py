"""What `tidemill up` does beside answering: the logs are moved into their tables when they are large or old. By a process of its own at low
priority, so that no answer waits for it."""

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from tidemill.core import Busy, duration
from tidemill.project import Project, now
from tidemill.serving import is_due
from tidemill.session import log_of
from tidemill.web.place import command

log = logging.getLogger(__name__)
LOOKS = 30.0  # seconds between looks
NICE = 10


@contextmanager
def compacting(declared: Project, *, looks: float = LOOKS) -> Iterator[None]:
    """Within it the logs of a project are looked at every so many seconds, and moved when that is due by its settings."""
    settings, folder, end = declared.settings, log_of(declared, "any").parent, Event()
    size, age = int(float(settings["serve.compact_megabytes"]) * 1e6), duration(str(settings["serve.compact_after"]))

    def look() -> None:
        while not end.wait(looks):
            try:
                if is_due(folder, now(), size=size, age=age):
                    _compact(declared.folder, end)
            except Exception as error:  # noqa: BLE001 – whatever is wrong with a log today, tomorrow it is looked at again
                log.warning("compaction=failed error=%r", error)

    if not size:
        yield
        return
    thread = Thread(target=look, name="compaction", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _compact(folder: Path, end: Event) -> None:
    compact = command("-C", str(folder), "predictions", "compact", "--wait", "0", "--json")
    process = subprocess.Popen(compact, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    said = None
    while said is None:
        if end.is_set():
            process.terminate()  # at any moment: the next one goes on
        with suppress(subprocess.TimeoutExpired):
            said = process.communicate(timeout=0.2)[1]
    if process.returncode not in (0, Busy.code) and not end.is_set():
        log.warning("compaction=failed error=%s", " ".join(said.split())[:500])
