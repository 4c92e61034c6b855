"""One answer of the gateway, step by step: request, features, what the model saw, score, rung, and what people said of it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from tidemill import registry, serving
from tidemill.core import Ref, TidemillError, UnknownName, show
from tidemill.ledger import Ledger
from tidemill.serving import Deployment, Expect

Line = Mapping[str, Any]
KEEP = "features were not kept of this answer: declare tm.PredictionLog(features=1.0), or set serve.log_features = 1.0"


def find_line(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The log, of those in a folder, that has an answer, and its line. Raises DataError for what is no id, UnknownName."""
    serving.asked_of(name)
    logs = [folder / f"{deployment}.jsonl" for deployment in serving.deployments_in(folder)]
    for thorough in (False, True):
        for path in logs:
            found = serving.answers_at(path).find([name], dict[str, Any], thorough=thorough)
            if found:
                return path, found[name]
    hint = "of a request with several rows each has its own: ID.0, ID.1, …" if "." not in name else "`tidemill predictions list NAME`"
    raise UnknownName(f"no answer has the id {name!r}", available=[path.stem for path in logs], hint=hint)


def traced(path: Path, line: Line, declared: Deployment | None, ledger: Ledger) -> dict[str, Any]:
    """An answer as plain data."""
    inputs = line.get("inputs")
    seen = _seen(inputs or {}, line.get("unexpected", {}), declared.expect if declared else ())
    model = _model(ledger, line)
    request: dict[str, Any] = {"asked": show(line["asked"]), "at": show(line["at_us"])}
    request |= {name: line.get(name) for name in ("route", "request", "trace", "latency_us", "key", "sent")}
    return {
        "id": line["id"],
        "deployment": path.stem,
        "request": request,
        "features_from": line["features_from"],
        "features_missing": line["features_missing"],
        "features": [_feature(line, name, value, seen[name]) for name, value in (inputs or {}).items()],
        "withheld": line.get("withheld", {}),
        "not_kept": "" if inputs is not None or line["features_from"] == "none" else KEEP,
        "unexpected": line.get("unexpected", {}),
        "version": line["version"],
        "model": str(model) if model else None,
        "rung": line["rung"],
        "given_at": line.get("given_at"),
        "cached": line.get("cached", False),
        "probability": line["probability"],
        "again": _again(ledger, model, line, seen),
        "feedback": [asdict(one) for one in serving.read_feedback(path) if one.id == line["id"]],
    }


def _feature(line: Line, name: str, value: Any, seen: Any) -> dict[str, Any]:
    """A feature: its value, what the model saw in its place, and what it was read from."""
    view, versions = name.partition("__")[0], line.get("versions", {})
    own = f"view {view}" not in versions
    version = versions.get("requests" if own else f"view {view}", "")
    came = line["features_from"] if not own else "request"
    status = line["features_missing"].get(view, "present")
    return {"name": name, "value": value, "seen": seen, "view": view, "version": version, "status": status, "from": came}


def _seen(inputs: Line, unexpected: Mapping[str, str], expect: Any) -> dict[str, Any]:
    """The features as the model saw them: those that were clipped at the nearer end of what is expected now."""
    seen, ranges = dict(inputs), {one.of: one for one in expect if isinstance(one, Expect)}
    for name, text in unexpected.items():
        one, value = ranges.get(name), inputs.get(name)
        if text.endswith(": clipped") and one and one.low is not None and one.high is not None and value is not None:
            seen[name] = min(max(float(value), one.low), one.high)
    return seen


def _model(ledger: Ledger, line: Line) -> Ref | None:
    """The model of an answer; None where no model gave it, or the ledger has none such."""
    with suppress(UnknownName):
        if "@" in line["version"]:
            return ledger.artifact(Ref.parse(f"model:{line['version']}")).ref
        if line["version"]:
            return ledger.artifact_of("model", registry.version(ledger, line["branch"], line["version"]).digest).ref
    return None


def _again(ledger: Ledger, model: Ref | None, line: Line, seen: Mapping[str, Any]) -> float | None:
    """What the model says to what it saw, computed now; None where that cannot be known."""
    if model is None or not seen or line.get("withheld", {}).get("inputs") or line.get("given_at"):
        return None
    with suppress(TidemillError):
        return serving.score_again(ledger, model, seen)
    return None
