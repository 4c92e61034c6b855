"""The key of an entity as one text: a single key as SQL spells it, the parts of a composite one escaped, with a separator between.

So `("1", "11")` is not `("11", "1")`, whatever characters the parts hold, and a null in any part is a null key, which matches nothing.
"""

from collections.abc import Sequence

import numpy as np

from tidemill.core import Coded
from tidemill.data import literal, quote
from tidemill.features.declarations import Entity
from tidemill.features.requests import SEPARATOR

ESCAPE = "\x1e"
_ESCAPED = ((ESCAPE, f"{ESCAPE}0"), (SEPARATOR, f"{ESCAPE}1"))


def entity_sql(entity: Entity) -> str:
    """SQL for the key of a row; null where any part of it is."""
    return joined_sql([quote(column) for column in entity.keys])


def joined_sql(parts: Sequence[str]) -> str:
    """SQL for the text of a key from SQL for its parts."""
    if len(parts) == 1:
        return parts[0]
    return f" || {literal(SEPARATOR)} || ".join(_escaped_sql(part) for part in parts)


def _escaped_sql(part: str) -> str:
    sql = f"CAST({part} AS VARCHAR)"
    for odd, instead in _ESCAPED:
        sql = f"replace({sql}, {literal(odd)}, {literal(instead)})"
    return sql


def joined(parts: Sequence[Coded]) -> Coded:
    """The text of each key from its parts as columns, as `joined_sql` spells it."""
    if len(parts) == 1:
        return parts[0]
    codes = np.stack([part.codes for part in parts], axis=1)
    some, inverse = np.unique(codes, axis=0, return_inverse=True)
    words = [[_escaped(word) for word in part.vocabulary] for part in parts]
    rows = some.tolist()
    texts = (None if min(row) < 0 else SEPARATOR.join(column[code] for column, code in zip(words, row, strict=True)) for row in rows)
    return Coded.of(texts).take(inverse.ravel())


def joined_text(parts: Sequence[str | None]) -> str | None:
    """The text of one key from its parts; None where one is null.

    >>> joined_text(["1", None]), joined_text(["ü"])
    (None, 'ü')
    """
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return known[0] if len(known) == 1 else SEPARATOR.join(map(_escaped, known))


def _escaped(part: str) -> str:
    for odd, instead in _ESCAPED:
        part = part.replace(odd, instead)
    return part
