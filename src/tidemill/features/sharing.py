"""The owner's half of sharing: what other projects need of a shared view is recorded in the ledger when it is built, and withdrawn when its
declaration no longer says that it is shared, or is gone.
"""

from collections.abc import Iterable

from tidemill.core import definition
from tidemill.data import publications, publish, withdraw
from tidemill.features.declarations import FeatureView
from tidemill.ledger import Artifact, Ledger


def share(ledger: Ledger, view: FeatureView, version: Artifact, dataset: Artifact) -> None:
    """Record a shared view with the versions that it has now."""
    entity = {"name": view.entity.name, "key": list(view.entity.keys), **view.entity.about()}
    plain = {"definition": definition(view), "about": view.about(), "entity": entity, "dataset": definition(view.dataset)}
    plain |= {"rows": str(dataset.ref), "version": str(version.ref)}
    publish(ledger, view.name, plain, "it is declared so")


def withdraw_unshared(ledger: Ledger, declared: Iterable[FeatureView]) -> None:
    """Withdraw the views that were shared and are declared so no longer."""
    shared = {view.name for view in declared if view.shared}
    for one in publications(ledger):
        if not one.withdrawn and one.view not in shared:
            withdraw(ledger, one.view, "its declaration no longer says so")
