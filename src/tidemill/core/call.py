"""A call of a protocol over HTTP, as data: the stages say which calls they answer, and the edge carries them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """`method` and `path` (with `{name}` for a part that goes into `ask`), the type of the request, the fields that must not be empty, what
    answers, what right it needs (`read` or `write`), and whether it may take long and so must not hold others up."""

    method: str
    path: str
    ask: type
    act: Callable[[Any, Any], Any]
    required: Sequence[str] = ()
    requires: str = "write"
    slow: bool = False


def answer(act: Callable[..., Any], *fields: str, tell: str = "") -> Callable[[Any, Any], Any]:
    """What answers a call by handing some fields of the request on: `act(ledger, *fields)`, told under a name."""

    def answered(ledger: Any, ask: Any) -> Any:
        found = act(ledger, *(getattr(ask, field) for field in fields))
        return {tell: found} if tell else found

    return answered


def page(name: str, found: list[Any], token: str | None) -> dict[str, Any]:
    """One page of an answer as the protocol has it: what is empty is not told."""
    return {name: found, "next_page_token": token} if token else {name: found} if found else {}
