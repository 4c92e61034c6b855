"""The state of the loop on one branch, and the actions that change it. Plain values: they go to the ledger as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from tidemill.core import Damaged, Verdict
from tidemill.monitoring import Alert, Skewed, Watched


@dataclass(frozen=True)
class Served:
    """A model version in the loop: its number, the digest of the model, its knowledge cut-off, and since when it has its role.

    `twin`, where it was judged on held-out rows: the digest and cut-off of the model that the gates saw.
    """

    label: str
    number: int
    digest: str
    until: int
    since: int
    twin: str = ""
    twin_until: int = 0

    @property
    def model(self) -> str:
        """The name of its model."""
        return self.label.rpartition("/")[0]


@dataclass(frozen=True)
class Candidate:
    """A version on its way. `phase`: judging (gates look at rows to come), judged, approval (people are asked), canary.

    `daily`: by how much its log loss was above the champion's on each day that the gates saw: how much a day differs by chance.
    `reference`: its quality on the rows that it was judged on, where those were held out.
    """

    version: Served
    phase: str
    since: int
    why: str
    look: int = 0
    weight: float = 0.0
    verdict: Verdict | None = None
    daily: tuple[float, ...] = ()
    reference: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighted:
    """A version that people gave a weight, of what a candidate on its way leaves; the champion has the rest."""

    version: Served
    weight: float


@dataclass(frozen=True)
class State:
    """Where the loop stands after the tick at `now`. `reference` is the champion's quality when it was judged.

    `pending`: alerts since the last attempt to retrain. `tried`: the digest of the edit (changed definitions, and the deployment that
    they were for) that the gates judged last, and when; `waiting`: its version, where it passed and people are asked. `compared`: until
    when served features were compared with those computed offline; `skew`: what the last comparison found, where it was too much.
    """

    now: int
    champion: Served
    frozen: Served
    previous: Served | None = None
    candidate: Candidate | None = None
    last_attempt: int = 0
    watched: int = 0
    reference: dict[str, float] = field(default_factory=dict)
    numbers: int = 1
    segments: int = 0
    trainings: int = 0
    row_rounds: int = 0
    tried: str = ""
    tried_at: int = 0
    waiting: Candidate | None = None
    pending: tuple[Alert, ...] = ()
    compared: int = 0
    skew: str = ""
    weighted: tuple[Weighted, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "State":
        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise Damaged(
                f"the state of the loop cannot be read: {error}", hint="it was written by another version: replay again"
            ) from None


@dataclass(frozen=True)
class Compared:
    """Both versions on the same rows since a rollout's step began: labels, how much worse the candidate is, and one-sided p of
    that; None where the days do not tell yet."""

    labels: int
    worse: float
    p_worse: float | None


@dataclass(frozen=True)
class SkewSeen:
    """A comparison of served features: what it found, the report that says so, and its alert."""

    found: Skewed
    report: str
    alert: Alert | None = None


@dataclass(frozen=True)
class Observation:
    """All that a decision may rest on. `skew`: the comparison of served features, where one was due."""

    now: int
    windows: tuple[Watched, ...] = ()
    new_labels: int = 0
    verdict: Verdict | None = None
    daily: tuple[float, ...] = ()
    last_look: bool = False
    compared: Compared | None = None
    approvals: int = 0
    skew: SkewSeen | None = None

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The alerts of all windows, and of the comparison."""
        windows = tuple(alert for window in self.windows for alert in window.alerts)
        return (*windows, self.skew.alert) if self.skew and self.skew.alert else windows


@dataclass(frozen=True)
class Compare:
    """Write down what a comparison of served features found."""

    seen: SkewSeen


@dataclass(frozen=True)
class Keep:
    """Write down what a window showed."""

    watched: Watched


@dataclass(frozen=True)
class Note:
    """Write an alert down."""

    alert: Alert


@dataclass(frozen=True)
class Retrain:
    """Train a candidate."""

    why: str


@dataclass(frozen=True)
class Look:
    """The gates looked and did not say yes; they look again later."""

    verdict: Verdict


@dataclass(frozen=True)
class Refuse:
    """The gates refuse the candidate for good."""

    verdict: Verdict


@dataclass(frozen=True)
class Admit:
    """The gates pass the candidate; with `rollout` it starts to climb, otherwise people are asked or it is promoted."""

    verdict: Verdict
    daily: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ask:
    """Wait for people."""

    missing: int


@dataclass(frozen=True)
class Climb:
    """Give the candidate the weight of a step of the canary."""

    weight: float
    why: str


@dataclass(frozen=True)
class Promote:
    """The candidate becomes champion."""

    why: str


@dataclass(frozen=True)
class RollBack:
    """The candidate leaves the rollout."""

    why: str
    compared: Compared


Action = Compare | Keep | Note | Retrain | Look | Refuse | Admit | Ask | Climb | Promote | RollBack
