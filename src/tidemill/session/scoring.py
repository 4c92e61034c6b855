"""Many rows answered by a deployment into a file, and what is recorded of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import msgspec

from tidemill import data, features, serving
from tidemill.core import Damaged, DataError, MissingFile, Ref, UnknownName, digest_value, instant, show
from tidemill.data import Dataset
from tidemill.features import Brought, Listen, open_rows
from tidemill.ledger import Artifact, Branch, Ledger, Made, Once, own_code
from tidemill.project import Project
from tidemill.serving import Batch, Endpoint, Tally, When
from tidemill.store import store_error, writer

KIND = "scores"
RAN = "batch prediction"
NOW, FIRST = "now", -(2**63)
STAGES = ("core", "ledger", "store", "models", "data", "features", "serving")
Writing = Callable[[], AbstractContextManager[Ledger]]


@dataclass(frozen=True, repr=False)
class Scored:
    """A file of scores, by what its rows asked (`form`): `ref` names its content, `execution` is its number in the ledger."""

    file: Path
    ref: Ref
    tally: Tally
    form: str
    execution: int

    @property
    def kept(self) -> int:
        """How many rows nothing was asked about."""
        return self.tally.rows - self.tally.scored - self.tally.failed

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        tally = self.tally
        by = [{"version": version, "rung": rung, "rows": rows} for (version, rung), rows in tally.by.items()]
        found = {"file": str(self.file), "ref": str(self.ref), "digest": self.ref.digest, "execution": self.execution, "by": self.form}
        found |= {"rows": tally.rows, "scored": tally.scored, "kept": self.kept, "failed": tally.failed, "first_failed": tally.first}
        return found | {"answers": by, "unexpected": tally.unexpected, "missing": tally.missing, "left_out": list(tally.left_out)}

    def __repr__(self) -> str:
        tally = self.tally
        lines = [f"{self.ref}: {tally.rows:,} rows by {self.form}, {tally.scored:,} scored, {self.kept:,} kept", str(self.file)]
        lines += [f"{rung} {version}: {rows:,}".replace(" :", ":") for (version, rung), rows in tally.by.items()]
        lines += [f"{tally.failed:,} could not be answered, the first: {tally.first}"] if tally.failed else []
        lines += [f"{tally.unexpected:,} with something unexpected"] if tally.unexpected else []
        lines += [f"{tally.missing:,} with a view that has no value"] if tally.missing else []
        lines += [f"not read: {', '.join(tally.left_out)}"] if tally.left_out else []
        return f"Scored({chr(10).join(lines)})"


@dataclass(frozen=True)
class Order:
    """What `Handle.score` is asked."""

    rows: Any
    to: Path
    at: str | date | datetime
    by: str
    version: str
    chunk: int
    explain: bool
    keep_going: bool
    timezone: str
    listen: Listen


def score(
    order: Order,
    declared: Project,
    branch: Branch,
    endpoint: Endpoint,
    cached_or_made: Callable[[str, Callable[[Ledger], Any]], Any],
    writing: Writing,
    now: int,
) -> Scored:
    """Score rows into a file, and record it. The ledger is written to only at the end, so a long run keeps nobody waiting."""
    features.writable(order.to)
    with ExitStack() as stack:
        if isinstance(order.rows, Dataset):
            brought = cached_or_made("score", lambda ledger: features.rows_of(ledger, data.ingest(ledger, order.rows).output, None))
        else:
            brought = stack.enter_context(features.bring(order.rows, endpoint.name))
        names = _names(brought)
        when = _when(order, declared, names, now)
        form = serving.form_of(names, endpoint, order.by)
        batch = Batch.of(endpoint, form, own_time=when.own, now=now, only=order.version, explain=order.explain)
        rests = {**batch.rests_on, "recipe": _recipe(branch, endpoint, form), "code": own_code(*STAGES)}
        place = _kept(declared) / endpoint.name / _short([brought.ref.kind, brought.ref.name, order.version, order.explain])
        more: dict[str, Any] = {"chunk": order.chunk, "keep_going": order.keep_going, "listen": order.listen}
        with writer(place / "lock", "score"):
            kept = place / _short(rests)
            if form != "features":
                _bring_up(kept, branch, endpoint, cached_or_made)
            tally = serving.write_scores(brought, batch, when, order.to, kept, **more)
        ref = Ref.of(KIND, endpoint.name, features.digest_of(order.to))
        with writing() as ledger:
            once = _record(ledger, brought, batch, order, rests, ref, tally)
    return Scored(order.to, ref, tally, form, once.execution)


def _names(brought: Brought) -> list[str]:
    """The columns of rows."""
    with data.engine() as connection:
        return open_rows(connection, brought.given, ()).names


def _when(order: Order, declared: Project, names: list[str], now: int) -> When:
    """The times that are meant: of a column, one for all, or by default of each its own. Raises DataError for what is neither."""
    timezone = order.timezone or (order.rows.timezone if isinstance(order.rows, Dataset) else "")
    if order.at == "":
        return When()
    if isinstance(order.at, str) and order.at in names:
        return When(order.at, None, timezone)
    if order.at == NOW:
        return When(time=now)
    try:
        return When(time=instant(order.at, declared.timezone))
    except ValueError as error:
        hint = 'name a column of times, write a time with its zone or a date, or "now"'
        raise DataError(f"at={order.at!r} is no column of the rows, and no time", available=names, hint=hint) from error


def _recipe(branch: Branch, endpoint: Endpoint, form: str) -> Mapping[str, Any]:
    """What of a recipe an answer rests on, but for what is known when: features that are sent look nothing up, and a row with its own
    columns is no known request."""
    if form == "features":
        return {}
    recipe: Mapping[str, Any] = branch.parts["recipe"]
    found = {name: recipe[name] for name in ("task", "datasets", "predict_at", "request")}
    found |= {"types": dict(endpoint.rows.types), "views": [one["definition"] for one in recipe["views"]]}
    return found | ({"requests": recipe["requests"]} if form == "key" else {})


def _bring_up(kept: Path, branch: Branch, endpoint: Endpoint, cached_or_made: Callable[[str, Callable[[Ledger], Any]], Any]) -> None:
    """Of the answers that are kept, leave those that the versions of views that serve now would give too: those of times before the first
    event in which they differ became known. Raises StoreError."""
    noted, now = kept / "views.json", dict(endpoint.reader.versions)
    try:
        before = msgspec.json.decode(noted.read_bytes(), type=dict[str, str]) if noted.exists() else {}
        changed = [name for name, digest in now.items() if before.get(name) != digest]
        cuts = [cached_or_made("score", partial(_since, endpoint, name, before.get(name, ""))) for name in changed]
        if any(cut is not None for cut in cuts):
            serving.keep_until(kept, min(cut for cut in cuts if cut is not None))
        if changed:
            kept.mkdir(parents=True, exist_ok=True)
            part = kept / "views.part"
            part.write_bytes(msgspec.json.encode(now))
            part.replace(noted)
    except OSError as error:
        raise store_error(error, str(kept)) from error


def _since(endpoint: Endpoint, name: str, digest: str, ledger: Ledger) -> int | None:
    """From when on a version of a view is another than that which serves; from ever on where it is not there any more."""
    log = endpoint.reader.logs[name]
    try:
        version = ledger.artifact(Ref("feature view", name, "", digest)) if digest else None
        return features.differ_since(features.load(ledger, log.view, version), log) if version else FIRST
    except (UnknownName, MissingFile, Damaged):
        return FIRST


def _short(value: Any) -> str:
    return digest_value(value)[:24]


def _record(ledger: Ledger, brought: Brought, batch: Batch, order: Order, rests: Mapping[str, Any], ref: Ref, tally: Tally) -> Once:
    """Write down that these rows were scored: from what, by which models, and what came of it."""
    ledger.put_artifact(Artifact(brought.ref, dict(brought.meta)))
    endpoint = batch.endpoint
    standing = endpoint.standing
    named = [standing.labels[order.version][1]] if order.version else [one[1] for one in (standing.champion, standing.challenger) if one]
    inputs: dict[str, Any] = {"rows": brought.ref, "model": [ledger.artifact_of("model", digest).ref for digest in named]}
    if batch.form != "features":
        views = endpoint.reader.versions
        inputs["views"] = {name: ledger.artifact(Ref("feature view", name, "", digest)).ref for name, digest in views.items()}
    inputs |= {
        "at": order.at if isinstance(order.at, str) else show(instant(order.at)),
        "answers": digest_value(rests),
        "scores": ref.digest,
    }
    meta = {"rows": tally.rows, "file": order.to.name, "bytes": order.to.stat().st_size}
    params = {"file": str(order.to.absolute()), "now": batch.now, "form": batch.form, "version": order.version, "failed": tally.failed}
    metrics = {"rows": float(tally.rows), "scored": float(tally.scored), "failed": float(tally.failed)}
    return ledger.once(RAN, endpoint.name, inputs, lambda: Made({KIND: Artifact(ref, meta)}, params, metrics), code=str(rests["code"]))


def _kept(declared: Project) -> Path:
    """The folder of answers that hold still, which tell keys: a cache."""
    return declared.state / "scores"


def forget_scores(declared: Project) -> None:
    """Delete the answers that are kept; the files that they were written to are the user's. Raises StoreError."""
    try:
        if _kept(declared).exists():
            rmtree(_kept(declared))
    except OSError as error:
        raise store_error(error, str(_kept(declared))) from error
