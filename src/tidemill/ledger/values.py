"""The values that the ledger gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill.core import Erased, Ref, show


@dataclass(frozen=True)
class Artifact:
    """An immutable thing with a digest; `meta` is plain data (digests of its blobs, schema, counts)."""

    ref: Ref
    meta: dict[str, Any]
    recorded_at: int = 0

    @property
    def erased(self) -> bool:
        """Whether its bytes were erased because somebody asked for it."""
        return "erased" in self.meta

    def blob(self, role: str) -> str:
        """The digest of its bytes in a role. Raises Erased, which says when and why."""
        if self.erased:
            at, why = show(self.meta["erased"]["at"]), self.meta["erased"]["why"]
            what = f"{self.ref} was erased on {at}" + (f": {why}" if why else "")
            raise Erased(
                what,
                hint="`tidemill run` (or `replay`, where that serves) makes a new version from the data that are left; this one is gone",
            )
        return str(self.meta["blobs"][role])


@dataclass(frozen=True)
class Made:
    """What a step made: artifacts by role, and the parameters and metrics worth keeping."""

    outputs: Mapping[str, Artifact]
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Once:
    """The answer of `Ledger.once`: the artifacts, whether they came from the cache, and if not, why not."""

    outputs: dict[str, Artifact]
    execution: int
    cached: bool
    why: str
    seconds: float = 0.0

    @property
    def output(self) -> Artifact:
        """The only, or the first, artifact."""
        return next(iter(self.outputs.values()))


@dataclass(frozen=True)
class Execution:
    """Something that ran. Instants in microseconds UTC, by the clock of the machine."""

    id: int
    key: str
    kind: str
    name: str
    branch: str
    status: str
    started_at: int
    ended_at: int | None
    pid: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    params: dict[str, Any]
    metrics: dict[str, Any]
    code: str
    environment: str
    error: str


@dataclass(frozen=True)
class Edge:
    """`child` was made from `parent`, which played `role`, in an execution (0: known without one)."""

    execution: int
    role: str
    parent: str
    child: str


@dataclass(frozen=True)
class Decision:
    """Who decided what about which thing, when by the branch's clock, why, and on what evidence."""

    id: int
    branch: str
    at: int
    who: str
    kind: str
    subject: str
    why: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Branch:
    """A line of history: the live one, or a replay keyed by its parts (definitions, data, policy)."""

    id: str
    kind: str
    name: str
    status: str
    created_at: int
    finished_at: int | None
    parts: dict[str, Any]
    state: dict[str, Any]
    result: dict[str, Any]


Step = Callable[[], Made]
