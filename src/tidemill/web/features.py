"""The views that the gateway gives by entity keys: those that the project declares, and those that serve."""

from collections.abc import Callable, Mapping
from threading import Lock

from tidemill import features
from tidemill.core import StoreError, definition
from tidemill.features import Computed, FeatureView, Getter, Looked, OnlineStore, Opened, RequestView, View
from tidemill.serving import Endpoint
from tidemill.session import Session, opened_as_built, types_of

KEPT = 200  # that are prepared


class Getters:
    """What answers for views, opened on first use. Nothing is built: what was built last is read."""

    def __init__(self, session: Session, store: OnlineStore, endpoints: Mapping[str, Endpoint], clock: Callable[[], int]) -> None:
        self._session, self._store, self._endpoints, self._clock = session, store, endpoints, clock
        self._kept, self._opened, self._lock = dict[tuple[str, ...], Getter](), dict[str, Looked](), Lock()
        self.prepared = self._kept.get

    def open(self, views: tuple[str, ...]) -> Getter:
        """What answers for some views. Raises UnknownName, DefinitionError, and StoreError for a view that was never built."""
        with self._lock:
            chosen = features.choose(views, self._known())
            looked, computed = dict[str, Looked](), dict[str, Computed]()
            for view in {one.view.name: one.view for one in chosen}.values():
                if isinstance(view, RequestView):
                    ledger = self._session.ledger
                    computed[view.name] = Computed.of(features.bound(ledger, view), types_of(ledger, view))
                else:
                    looked[view.name] = self._opened.get(view.name) or Looked(self._open(view))
            self._opened |= looked
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = Getter(chosen, looked, computed, self._store, self._clock, self._session.project.timezone)
            self._kept[views] = found
            return found

    def forget(self) -> None:
        """Open all anew: something newer serves."""
        with self._lock:
            self._kept.clear()
            self._opened.clear()

    def _known(self) -> dict[str, View]:
        """The views by name; one that is declared before one that serves."""
        served: list[View] = [view for endpoint in self._endpoints.values() for view in endpoint.reader.views]
        declared: list[View] = [*self._session.project.all(FeatureView), *self._session.project.all(RequestView)]
        return {view.name: view for view in [*served, *declared]}

    def _open(self, view: FeatureView) -> Opened:
        """A view as it serves, where that is as it is declared; else as it was built last."""
        logs = [log for endpoint in self._endpoints.values() for log in endpoint.reader.logs.values()]
        serves = next((log for log in logs if definition(log.view) == definition(view)), None)
        ledger = self._session.ledger
        found = Opened(serves, types_of(ledger, view)) if serves else opened_as_built(ledger, self._session.project, view)
        if found is None:
            hint = f"run `tidemill features materialise {view.name}`"
            raise StoreError(f"view {view.name!r} is declared and not built yet", where=str(view.where), hint=hint)
        return found
