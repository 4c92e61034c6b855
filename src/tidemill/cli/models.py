"""`tidemill models`: registered models, their versions, where their aliases pointed, and what differs between two versions."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table

from tidemill import loop, project, registry
from tidemill.cli.console import Terminal, out, print_json
from tidemill.core import DataError, DefinitionError, StoreError, UnknownName, show
from tidemill.ledger import user
from tidemill.models import form_of, signature_of
from tidemill.registry import ModelVersion, RegisteredModel
from tidemill.session import Session, now

SECTIONS = ("params", "metrics", "data", "code", "environment", "signature")


def _session(folder: str) -> Session:
    """A session whose ledger has the tables of the registry, also where it was last written before there were these."""
    session = Session(folder)
    with suppress(StoreError):
        _ = session.ledger  # MissingFile before anything has run
    with suppress(StoreError):  # who may only read sees what is there
        ledger = session.project.ledger()
        loop.prepare(ledger)
        ledger.records.close()
    return session


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == "ref")  # it is copied into files
    return table


def _time(milliseconds: int) -> str:
    return show(milliseconds * 1000)


def list_models(folder: str, *, as_json: bool) -> None:
    """Print the registered models."""
    ledger = _session(folder).ledger
    found, token = registry.search_registered(ledger, max_results=1_000)
    while token:
        more, token = registry.search_registered(ledger, max_results=1_000, page_token=token)
        found += more
    with ledger.records.snapshot() as sql:
        loops = registry.looped(sql)
    if as_json:
        print_json([_plain_model(one, loops[one.name].deployment if one.name in loops else "") for one in found])
        return
    table = _table("model", "of", "newest", "aliases", "changed")
    for one in found:
        by = f"deployment {loops[one.name].deployment}" if one.name in loops else "clients"
        aliases = ", ".join(f"{alias.alias} → {alias.version}" for alias in one.aliases or ())
        table.add_row(escape(one.name), by, _newest(one), aliases, _time(one.last_updated_timestamp)[:10])
    out.print(table if found else "no model is registered yet; `tidemill run` makes one, or a client of MLflow registers one")


def _newest(model: RegisteredModel) -> str:
    return str(max((int(one.version) for one in model.latest_versions or ()), default="–"))


def _plain_model(model: RegisteredModel, deployment: str) -> dict[str, Any]:
    aliases = {alias.alias: alias.version for alias in model.aliases or ()}
    return {"name": model.name, "deployment": deployment, "newest": _newest(model), "aliases": aliases} | {
        "description": model.description or "",
        "tags": {tag.key: tag.value for tag in model.tags or ()},
    }


def show_model(folder: str, name: str, *, as_json: bool) -> None:
    """Print the versions of a model. Raises UnknownName."""
    ledger = _session(folder).ledger
    model = registry.get_model(ledger, name)
    versions, _ = registry.search_versions(ledger, f"name = '{name}'", order_by=["version_number DESC"])
    forms = {one.version: form_of(ledger.artifact_of("model", digest)) for one in versions if (digest := _tag(one, "digest"))}
    if as_json:
        deployment = next(filter(None, (_tag(one, "deployment") for one in versions)), "")
        beside = {one.version: {"ref": registry.model_ref(ledger, one), "form": forms.get(one.version, "")} for one in versions}
        plain = [{**msgspec.to_builtins(one), **beside[one.version]} for one in versions]
        print_json(_plain_model(model, deployment) | {"versions": plain})
        return
    out.print(f"[bold]{escape(name)}[/]  {escape(model.description or '')}")
    described = any(one.description for one in versions)
    table = _table("version", "aliases", "verdict", "made", "ref", "run", *(["description"] if described else []))
    for one in versions:
        ref = escape(registry.model_ref(ledger, one).replace(", ", "\n"))
        made, run = _time(one.creation_timestamp)[:10], (one.run_id or "")[:8]  # `runs show` takes the beginning
        more = [escape(one.description or "")] if described else []
        table.add_row(one.version, ", ".join(one.aliases or ()), _verdict(one), made, ref, run, *more)
    (out if out.is_terminal else Terminal(width=1000)).print(table)  # a pipe has no edge
    for number, form in forms.items():
        if form != "compiled":
            out.print(f"{number} answers as {escape(form)}", style="dim", soft_wrap=True)


def _verdict(version: ModelVersion) -> str:
    return {"passed": "[green]passed[/]", "refused": "[yellow]refused[/]"}.get(_tag(version, "verdict"), "–")


def _tag(version: ModelVersion, name: str) -> str:
    """What the loop says of a version; empty of one of a client."""
    return next((str(tag.value) for tag in version.tags or () if tag.key == f"tidemill.{name}"), "")


def history(folder: str, name: str, alias: str, *, as_json: bool) -> None:
    """Print where the aliases of a model pointed. Raises UnknownName."""
    moves = registry.alias_history(_session(folder).ledger, name, alias)
    if as_json:
        print_json([move.plain() for move in moves])
        return
    table = _table("when", "alias", "version", "who", "why")
    for move in moves:
        table.add_row(show(move.at), escape(move.alias), move.version or "none", escape(move.who), escape(move.why))
    out.print(table if moves else f"no alias of {escape(name)} was ever set")


def diff(folder: str, one: str, two: str, *, as_json: bool) -> None:
    """Print what differs between two versions. Raises UnknownName."""
    found = _session(folder).diff(one, two)
    if as_json:
        print_json(found)
        return
    out.print(f"[bold]{escape(found['one'])}[/] → [bold]{escape(found['two'])}[/]")
    table = _table("", "", found["one"], found["two"])
    for section in SECTIONS:
        for row, change in enumerate(found[section]):
            cells = [_brief(change[side], change["one" if side == "two" else "two"]) for side in ("one", "two")]
            table.add_row("" if row else section, escape(change["name"]), *cells)
    _feature_rows(table, found["features"])
    out.print(table)
    same = [section for section in SECTIONS if not found[section]]
    same += [] if any(found["features"].values()) else ["features"]
    same = [section for section in same if section not in found["unknown"]]
    for word, sections in (("equal", same), ("unknown of both", found["unknown"])):
        if sections:
            out.print(f"[dim]{word}: {', '.join(sections)}[/]")
    _predictions(found["predictions"])


def _feature_rows(table: Table, found: dict[str, Any]) -> None:
    rows = [(name, "–", "added") for name in found["added"]] + [(name, "removed", "–") for name in found["removed"]]
    rows += [(one["name"], _brief(one["one"], one["two"]), _brief(one["two"], one["one"])) for one in found["changed"]]
    for row, (name, before, after) in enumerate(rows):
        table.add_row("" if row else "features", escape(name), before, after)


def _brief(value: Any, other: Any = None) -> str:
    """A value for people: of a mapping only what differs from the other, a dash where there is none."""
    if isinstance(value, dict):
        rest = other if isinstance(other, dict) else {}
        value = ", ".join(f"{key}: {item}" for key, item in value.items() if rest.get(key) != item)
    if isinstance(value, list):
        value = (
            ", ".join(str(item) for item in value if not isinstance(other, list) or item not in other) or f"{len(value)} in another order"
        )
    if isinstance(value, float):
        value = f"{value:.6g}"
    text = "–" if value is None else str(value)
    return escape(text if len(text) <= 200 else f"{text[:199]}…")


def _predictions(found: list[dict[str, Any]]) -> None:
    if not found:
        out.print("predictions: not compared; a model that a client registered is never loaded here")
    for one in found:
        if "why" in one:
            said = escape(one["why"])
        else:
            said = f"{one['rows']} rows, at most {one['max']:.4f} apart, {one['mean']:.4f} on average, {one['crossed']:.0%} cross 0.5"
        out.print(f"predictions on the golden cases of {escape(one['cases'])}: {said}")


def adopt(folder: str, version: str, output: str, features: str, *, as_json: bool) -> None:
    """Make a version of a client's a model of the ledger, and print its ref. Raises UnknownName and DataError."""
    names = [name.strip() for name in features.split(",") if name.strip()]
    session = Session(folder)
    found = session.ledger.artifact(session.adopt(version, output=output, features=names))
    signature = signature_of(found)
    if as_json:
        told = {"ref": str(found.ref), "digest": found.ref.digest, "version": version, "features": signature.features}
        print_json(told | {"categories": signature.categories, "output": signature.output, "width": signature.width})
        return
    out.print(f"[bold]{escape(str(found.ref))}[/]", soft_wrap=True)
    out.print(f"takes    {escape(', '.join(signature.features))}", soft_wrap=True)
    out.print(f"gives    {escape(signature.output)}: {signature.width} number{'s' if signature.width > 1 else ''} for a row")
    out.print("bind a feature to it: tm.output_of(…) in the files of the project", style="dim")


def traffic(folder: str, deployment: str, weights: Sequence[str], who: str, why: str, *, as_json: bool) -> None:
    """Share the requests of a deployment between versions, by weights (`boosted/2=0.2`); without any, print who answers which share.
    Raises DefinitionError without a reason, and what `loop.set_weights` does."""
    found, me = project.load(folder), user()
    if not weights:
        shares = _standing(folder, deployment)
        print_json({"deployment": deployment, "now": shares}) if as_json else _shares(deployment, shares)
        return
    if not why.strip():
        raise DefinitionError("--why is missing", hint="say for the record why the requests shall be shared so")
    wanted = [_weight(one) for one in weights]
    if len(dict(wanted)) < len(wanted):
        raise DataError("a version is named twice", hint="name each version once")
    needed = loop.needed(found.all(loop.RetrainPolicy), deployment)
    with found.writing("traffic", wait=60) as ledger:
        loop.prepare(ledger)
        done = loop.set_weights(ledger, deployment, dict(wanted), needed=needed, who=who or me, user=me, why=why, at=now())
    if as_json:
        print_json({"deployment": deployment, "before": done.before, "now": done.now})
        return
    _shares(deployment, done.now)
    out.print("a running `tidemill up` answers so within two seconds, and drops no request")


def _weight(text: str) -> tuple[str, float]:
    """A version and its weight. Raises DataError."""
    name, _, weight = text.rpartition("=")
    try:
        return name.strip(), float(weight)
    except ValueError:
        raise DataError(f"{text!r} is no weight of a version", hint="for example boosted/2=0.2") from None


def _standing(folder: str, deployment: str) -> dict[str, float]:
    serving = Session(folder).serving
    if deployment not in serving:
        raise UnknownName(f"no deployment {deployment!r} serves", available=sorted(serving), hint="name one of these")
    return loop.shared_by(loop.State.of(serving[deployment].branch.state))


def _shares(deployment: str, shares: Mapping[str, float]) -> None:
    out.print(f"deployment [bold]{escape(deployment)}[/]")
    for label, part in shares.items():
        out.print(f"  {part:7.2%}  {escape(label)}")


def _people(folder: str, deployment: str) -> int:
    """How many people must agree to a version: looked up only where that counts, for a project that cannot be loaded can go back too."""
    return loop.needed(project.load(folder).all(loop.RetrainPolicy), deployment)


def rollback(folder: str, what: str, to: str, who: str, why: str, *, as_json: bool) -> None:
    """Let an earlier version serve again, or point an alias of a client back. Raises DefinitionError without a reason, Refused,
    UnknownName, and Busy with who writes."""
    if not why.strip():
        raise DefinitionError("--why is empty", hint="say for the record why an earlier version shall serve again")
    me = user()
    alias = what.startswith("models:/")
    with project.find(folder).writing("rollback", wait=60) as ledger:
        loop.prepare(ledger)
        if alias:
            name, _ = pair = registry.split_alias(what)
            numbers = registry.restore_alias(ledger, *pair, to=to.removeprefix(f"{name}/"), who=who or me, why=why)
            before, then, dropped = *(f"{name}/{number}" if number else "none" for number in numbers), ""
        else:
            people = partial(_people, folder, what)
            done = loop.roll_back(ledger, what, to=to, needed=people, who=who or me, user=me, why=why, at=now())
            before, then, dropped = done.before, done.now, done.dropped
    if as_json:
        print_json({"what": what, "before": before, "now": then, "dropped": dropped})
        return
    verb = "is" if alias else "serves"
    out.print(f"[bold]{escape(then)}[/] {verb} {escape(what)} again instead of {escape(before)}")
    if dropped:
        out.print(f"the candidate {escape(dropped)} was dropped")
    if not alias:
        out.print("a running `tidemill up` answers by it within two seconds")
