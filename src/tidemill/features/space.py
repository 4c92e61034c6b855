"""The space of one view in the online store, as it is read."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from tidemill.core import Coded, Floats, Instants
from tidemill.features.declarations import FeatureView
from tidemill.features.forms import form_of
from tidemill.features.online import Mark, OnlineStore, space_of
from tidemill.features.state import not_a_state
from tidemill.features.views import Block

Known = Mapping[str, Sequence[str]]  # the categories of a feature, by its full name


class Space:
    """Reads the states of a view's entities."""

    def __init__(self, store: OnlineStore, view: FeatureView) -> None:
        self._store, self._view, self.name = store, view, space_of(view)
        self._form = form_of(view)
        self._mark: tuple[bytes | None, Mark | None] = (None, None)

    def mark(self) -> Mark | None:
        """What is known of the space now."""
        data = self._store.mark(self.name)
        if data != self._mark[0]:
            self._mark = (data, Mark.of(data))
        return self._mark[1]

    def read(self, keys: Coded, at: Instants, known: Known) -> Block:
        """The values of each key at its time. Categories have the numbers that `known` gives them; words that it lacks follow. Raises
        LookupError for a time before one of the states can be read, and Damaged."""
        used = sorted({code for code in keys.codes.tolist() if code >= 0})
        found = self._store.get(self.name, [keys.vocabulary[code] for code in used])
        places = {code: i for i, code in enumerate(code for code, data in zip(used, found, strict=True) if data)}
        states = [data for data in found if data]
        if not all(map(self._form.fits, states)):
            raise not_a_state()
        which = np.array([places.get(code, -1) for code in keys.codes.tolist()], dtype=np.int64)
        values, status = self._form.read(states, which, at)
        words = dict[str, tuple[str, ...]]()
        for feature, full in self._coded.items():
            mark = self._mark[1] or self.mark()
            own = mark.words[feature] if mark else []
            words |= dict.fromkeys(full, self._numbered(values, full, own, known[full[0]]))
        return Block(self._view.names, values, status, words)

    def _numbered(self, values: Floats, full: Sequence[str], own: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
        """Number the categories of some columns as is known; returns all words."""
        if tuple(own) == tuple(known):
            return tuple(known)
        words = [*known, *(word for word in own if word not in set(known))]
        number = {word: i for i, word in enumerate(words)}
        table = np.array([*(number[word] for word in own), np.nan])
        for name in full:
            column = values[:, self._view.names.index(name)]
            column[:] = table[np.where(np.isnan(column), -1, column).astype(np.int64)]
        return tuple(words)

    @cached_property
    def _coded(self) -> dict[str, list[str]]:
        """The features of categories, and their full names."""
        return {name: self._view.names_of(name) for name, feature in self._view.columns.items() if feature.category}
