"""The owner's half of sharing: what other projects need of a shared view is recorded in the ledger when it is built, and withdrawn when its
declaration no longer says that it is shared, or is gone. A process that imported its files before somebody else recorded something does
not contradict that: a notebook that is open for days knows nothing of what was edited since.
"""

from pathlib import Path

from tidemill.core import definition
from tidemill.data import publications, publish, withdraw
from tidemill.features.declarations import FeatureView
from tidemill.ledger import Artifact, Ledger
from tidemill.project import Project, imported_at


def share(ledger: Ledger, view: FeatureView, version: Artifact, dataset: Artifact) -> None:
    """Record a shared view with the versions that it has now."""
    entity = {"name": view.entity.name, "key": list(view.entity.keys), **view.entity.about()}
    plain = {"definition": definition(view), "about": view.about(), "entity": entity, "dataset": definition(view.dataset)}
    plain |= {"rows": str(dataset.ref), "version": str(version.ref)}
    since = imported_at(Path(view.where.file))
    if all(since is None or one.at < since or one.says(plain) for one in publications(ledger, view.name)):
        publish(ledger, view.name, plain, "it is declared so")


def withdraw_unshared(ledger: Ledger, project: Project) -> None:
    """Withdraw the views that were shared and are declared so no longer."""
    shared, since = {view.name for view in project.all(FeatureView) if view.shared}, imported_at(project.folder)
    for one in publications(ledger):
        if not one.withdrawn and one.view not in shared and (since is None or one.at < since):
            withdraw(ledger, one.view, "its declaration no longer says so")
