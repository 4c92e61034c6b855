"""The verdict of the gates on one model version, and the approvals of people: what `registry.promote` asks for."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GateResult:
    """One gate's answer with its evidence: `passed`, a sentence for people, and the numbers behind it."""

    gate: str
    passed: bool
    reason: str
    evidence: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The outcome of all gates for one model version (`subject`, a ref in text). It passes when every gate passed.

    >>> Verdict("model:m@1", (GateResult("calibration", False, "ece 0.09 > 0.03"),)).passed
    False
    >>> Verdict("model:m@1", ()).passed      # no gate is no verdict
    False
    """

    subject: str
    results: tuple[GateResult, ...]
    rows: int = 0

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def reason(self) -> str:
        failed = [f"{result.gate}: {result.reason}" for result in self.results if not result.passed]
        return "; ".join(failed or [f"{result.gate}: {result.reason}" for result in self.results]) or "no gate was run"


@dataclass(frozen=True)
class Approval:
    """A person's yes to one subject, at an instant (microseconds UTC)."""

    subject: str
    who: str
    at: int
    why: str = ""
