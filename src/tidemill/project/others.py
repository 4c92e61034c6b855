"""Other projects whose shared views are used here: where their records and blobs lie, and their ledgers, which are only read."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from tidemill.core import DefinitionError, MissingFile, StoreError, UnknownName, Where
from tidemill.ledger import Ledger
from tidemill.project.project import now
from tidemill.project.settings import FILE, Settings, read_settings
from tidemill.store import FolderBlobs, Records, is_address

ASKED_AGAIN = 5.0  # seconds for which a database that does not answer is not asked: each view would wait for it anew
_away: dict[str, tuple[float, StoreError]] = {}


@dataclass(frozen=True)
class Elsewhere:
    """Another project by its name here; `place` is its folder or those of its records and blobs, `where` the line that says so."""

    name: str
    place: str | dict[str, str]
    where: Where
    ours: Settings

    @property
    def owner(self) -> str:
        """Who answers for it, where its folder is known; to be asked otherwise is whoever owns a view. Raises as `read_settings`."""
        return str(self._settings["project.owner"]) if isinstance(self.place, str) else ""

    @property
    def _settings(self) -> Settings:
        try:
            return read_settings(self.ours.folder / str(self.place))
        except MissingFile as error:
            error.what = f"project {self.name} does not lie in {self.place}: {error.what}"
            error.hint = f"say in {FILE} where it lies"
            raise

    @contextmanager
    def opened(self) -> Iterator[Ledger]:
        """Its ledger, for reading. Raises MissingFile and StoreError where that cannot be reached, and DefinitionError for its settings."""
        if isinstance(self.place, str):
            settings = self._settings
            place, blobs = settings.records, settings.path("store.blobs")
        else:
            place, blobs = self.ours.place(self.place["records"]), self.ours.folder / self.place["blobs"]
        records = self._records(place)
        try:
            yield Ledger(records, FolderBlobs(blobs), now, read_only=True)
        finally:
            records.close()

    def _records(self, place: Path | str) -> Records:
        since, error = _away.get(str(place), (-inf, None))
        if error and time.monotonic() - since < ASKED_AGAIN:
            raise StoreError(error.what, where=error.where, hint=error.hint)
        try:
            return Records(place, read_only=True)
        except MissingFile as error:
            error.what, error.hint = (
                f"project {self.name} has no ledger yet",
                "build a shared view there first, for example by `tidemill features materialise`",
            )
            raise
        except StoreError as error:
            error.hint = f"project {self.name} lies there by {self.where}: is it up, and may this user read it?"
            if is_address(place):
                _away[str(place)] = time.monotonic(), StoreError(error.what, where=error.where, hint=error.hint)
            raise


def elsewhere(settings: Settings, name: str) -> Elsewhere:
    """Another project by its name in the settings; raises UnknownName."""
    found = settings.shared
    if name not in found:
        hint = f'say in {FILE} where it lies: [shared] {name} = "../{name}"'
        raise UnknownName(f"no other project is named {name!r}", where=str(settings.folder / FILE), available=sorted(found), hint=hint)
    return Elsewhere(name, found[name], _said_in(settings.folder / FILE, name), settings)


def _said_in(path: Path, name: str) -> Where:
    """The line of the settings that names a project."""
    said = re.compile(rf"\s*(\[\s*)?(shared\s*\.\s*)?[\"']?{re.escape(name)}\b")
    lines = path.read_text(encoding="utf-8").splitlines()
    head = next((number for number, line in enumerate(lines) if re.match(r"\s*\[\s*shared\b", line)), 0)
    return Where(str(path), next((number for number, line in enumerate(lines[head:], head + 1) if said.match(line)), 1))


def settings_around(*files: Path) -> Settings:
    """The settings of the project in whose folder the first of some files lies that lies in one. Raises DefinitionError."""
    folder = next((above for file in files for above in file.absolute().parents if (above / FILE).is_file()), None)
    if folder is None:
        hint = f"views of other projects are found by the {FILE} of yours: write one, or go to its folder"
        raise DefinitionError(f"there is no {FILE} around {files[0].parent}", hint=hint)
    return read_settings(folder)
