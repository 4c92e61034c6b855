"""Rows of another project's dataset: the version that its owner shares. It is taken as it is, so that the order of equal times, pushed
rows and knowledge times are the owner's.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.core import Erased, MissingFile, Ref, Refused, StoreError, UnknownName, definition, show
from tidemill.data.declarations import Dataset
from tidemill.data.publications import publications, published_before, shared_rows
from tidemill.ledger import Artifact, Ledger
from tidemill.project import Elsewhere, elsewhere, settings_around
from tidemill.store import Blobs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Theirs:
    """A version of a dataset in the ledger of its owner, and its blobs; `where` the settings say where these lie."""

    project: str
    version: Artifact
    blobs: Blobs
    where: str

    @property
    def ref(self) -> Ref:
        """What is recorded here as the source of the rows."""
        return Ref.of("source", f"{self.project}/{self.version.ref.name}", self.version.ref.digest)

    @property
    def types(self) -> dict[str, str]:
        """The types of its columns by their names."""
        return dict(self.version.meta["types"])

    def file(self) -> Path:
        """The rows. Raises MissingFile and StoreError."""
        try:
            return self.blobs.path(self.version.blob("rows"))
        except (MissingFile, StoreError) as error:
            error.what = f"the rows of {self.ref} cannot be taken: {error.what}"
            error.where = error.where or self.where
            error.hint = (
                f"do the blobs lie there? `tidemill doctor` in project {self.project} says more; what was built here is still served"
            )
            raise

    def record(self, ledger: Ledger) -> Ref:
        """Write down that there is such a source; one that is known costs no look at its bytes."""
        with suppress(UnknownName):
            return ledger.artifact(self.ref).ref
        told: dict[str, Any] = {"project": self.project, "dataset": str(self.version.ref), "rows": self.version.meta["rows"]}
        with suppress(MissingFile, StoreError):  # they may be here already
            told["bytes"] = self.file().stat().st_size
        return ledger.put_artifact(Artifact(self.ref, told))


def their_version(dataset: Dataset) -> Theirs:
    """The version that the owner of a dataset shares now; of one that the owner defines otherwise by now, for which a model that serves may
    ask, the last that was shared, with a warning. Raises Refused where no view over it is shared any more, UnknownName where its
    rows are defined otherwise, Erased, and StoreError or MissingFile where the owner's store cannot be reached."""
    assert dataset.elsewhere is not None
    project, _, name = dataset.elsewhere.path.partition("/")
    other = elsewhere(settings_around(Path(dataset.elsewhere.where.file)), project)
    try:
        with other.opened() as theirs:
            found = shared_rows(theirs, name, definition(dataset))
            if found is None:
                raise _withdrawn(theirs, dataset, name, other)
            version = theirs.artifact(found.rows)
            version.blob("rows")  # what was erased there is not used on here
            if found not in publications(theirs, found.view):
                log.warning("dataset=%s has no newer rows: project %s defines them otherwise by now", dataset.name, project)
            return Theirs(project, version, theirs.blobs, str(other.where))
    except (MissingFile, StoreError, UnknownName) as error:
        error.what = f"dataset {dataset.name!r} cannot be brought up to date: {error.what}"
        error.hint = f"its rows are those of project {project}, which {other.where} names; what was built of them before is still served"
        if isinstance(error, Erased):
            error.hint = f"project {project} makes a version without what was erased with its next run; run again here after it"
        raise


def _withdrawn(theirs: Ledger, dataset: Dataset, name: str, other: Elsewhere) -> Refused:
    """What there is to say of a dataset over which nothing is shared."""
    now = publications(theirs)
    gone = [one.at for one in now if one.withdrawn and any(old.dataset == name for old in published_before(theirs, one.view))]
    what = f"project {other.name} shares no view over dataset {name!r}" + (f" since {show(max(gone))}" if gone else "")
    hint = f"ask {other.owner or 'its owner'}; what was built of its rows before stays, and is not brought up to date"
    shared = sorted(one.view for one in now if not one.withdrawn)
    return Refused(what, where=str(dataset.where), available=shared, hint=hint)
