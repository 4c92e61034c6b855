"""Where segments wait: in a project's own state, or in the user's for what goes to a server."""

import os
import shutil
import uuid
from pathlib import Path

from tidemill.core import StoreError

URI, SPOOL = "TIDEMILL_URI", "TIDEMILL_SPOOL"
LOOKS = "-m"  # between a run and the rest of the name: the segment of what the companion sees of the machine
_PROJECT = "tidemill.toml"


def destination_of(to: str | Path | None) -> str:
    """A server's address, or the folder of a project: what is given, else `TIDEMILL_URI`, else the project around the working folder,
    else the working folder."""
    given = str(to or os.environ.get(URI, ""))
    if given.startswith(("http://", "https://")):
        return given.rstrip("/")
    if given:
        return str(Path(given).expanduser().resolve())
    here = Path.cwd()
    return str(next((folder for folder in (here, *here.parents) if (folder / _PROJECT).exists()), here))


def is_server(destination: str) -> bool:
    """Whether it is an address."""
    return destination.startswith(("http://", "https://"))


def spool_of(destination: str) -> Path:
    """The folder where segments for a destination wait: `TIDEMILL_SPOOL`, the project's state, or the user's."""
    if os.environ.get(SPOOL):
        return Path(os.environ[SPOOL])
    return user_spool() if is_server(destination) else Path(destination) / ".tidemill" / "spool"


def user_spool() -> Path:
    """Where what goes to a server waits."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tidemill" / "spool"


def segments(spool: Path, run: str = "", ending: str = "seg") -> list[Path]:
    """The segments that wait, of one run or of all. (`refused` and `damaged` are the endings of what was moved aside.)"""
    return sorted(spool.glob(f"{run}*.{ending}"))


def files_of(segment: Path) -> Path:
    """The folder of the files that a segment brings along."""
    return segment.with_suffix(".files")


def attach(segment: Path, content: Path | bytes) -> str:
    """Copy a file beside a segment; returns its name there. Raises StoreError when the disk refuses."""
    folder, name = files_of(segment), uuid.uuid4().hex
    try:
        folder.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)
    except OSError as error:
        raise StoreError(f"the file cannot be kept: {error.strerror or error}", where=str(folder), hint="free some space") from error
    return name


def discard(segment: Path) -> None:
    """Remove a segment that is shipped, with its files."""
    shutil.rmtree(files_of(segment), ignore_errors=True)
    segment.with_suffix(".away").unlink(missing_ok=True)
    segment.unlink(missing_ok=True)
