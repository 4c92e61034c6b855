"""Files of runs and models in a folder of this machine. Nothing outside the folder is read, and no link is followed."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidemill.core import UnknownName

CHUNK = 1 << 20


def folder_of(root: Path, uri: str) -> Path | None:
    """The folder below `root` that a URI means; a store that was moved is found by the end of its paths. None where there is none, as for a
    run without files. Raises UnknownName for a URI of another place."""
    if re.match(r"[a-z0-9+.\-]+:", uri) and not uri.startswith(("file:", "mlflow-artifacts:")):
        raise UnknownName(f"{uri} lies elsewhere: its files stay there", hint="import from the server that reaches them")
    path = unquote(urlsplit(uri).path) if ":" in uri.split("/")[0] else uri
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnknownName(f"{uri} leads out of {root}")
    inside = root.resolve()
    whole = Path(path)
    places = [whole] if whole.is_absolute() else []
    places += [inside.joinpath(*parts[at:]) for at in range(max(len(parts) - 1, 0))]  # the longest end first
    for place in places:
        if place.is_dir() and place.resolve().is_relative_to(inside) and place.resolve() != inside:
            return place.resolve()
    return None


def files_below(folder: Path, problems: list[str]) -> Iterator[tuple[str, int]]:
    """Path and size of every file, by name. Links and what is no file are told and left out."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{here}: cannot be read: {error.strerror}")
            continue
        for entry in entries:
            if entry.is_symlink():
                problems.append(f"{entry.path}: a symbolic link is not followed")
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path).relative_to(folder).as_posix(), entry.stat(follow_symlinks=False).st_size
            else:
                problems.append(f"{entry.path}: neither a file nor a folder")


def read_below(folder: Path, path: str) -> Iterator[bytes]:
    """The bytes of a file in pieces; a link in its place is not followed."""
    handle = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        while piece := file.read(CHUNK):
            yield piece
