"""`tidemill features`: what features there are, all that is known of one, and features for rows that a user brings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import TaskID
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import Terminal, fitting, lines, out, print_json, progress, row_bar
from tidemill.cli.plain import plain
from tidemill.cli.sharing import told
from tidemill.features import FeatureView
from tidemill.session import Session

VERSIONS, ROWS = 5, 60  # of a view, and of its statistics, that are shown
UNITS = (("y", 31_557_600, 2 * 31_557_600), ("d", 86_400, 2 * 86_400), ("h", 3_600, 2 * 3_600), ("min", 60, 120), ("s", 1, 0))
NEVER = "nothing is built yet; `tidemill run` or `tidemill replay` builds what a model needs, `tidemill features get` what is asked for"
AWAY = {"damaged": " [red]damaged[/]", "erased": " [yellow]erased[/]"}
ERASED = "its bytes were erased because somebody asked for it; the next run makes it anew from what is left"
DAMAGED = "its bytes are not what was written; `tidemill doctor` names the file and says what to do"

Plain = Mapping[str, Any]


def get(folder: str, *, rows: str, views: str, to: Path | None, save: str, as_json: bool, **more: Any) -> None:
    """Write or save rows with their features. Raises UnknownName, DefinitionError and DataError."""
    if to is None and not save:
        raise click.UsageError("Missing option '--to' or '--save'.")
    if not views and not more["model"]:
        raise click.UsageError("Missing option '--views' or '--model'.")
    asked = [view.strip() for view in views.split(",") if view.strip()]
    with row_bar(quiet=as_json) as listen:
        found = Session(folder).historical_features(rows, asked, to=to, save=save, listen=listen, **more)
    if as_json:
        saved = {"ref": str(found.ref), "digest": found.ref.digest, "cached": not found.why, "why": found.why} if found.ref else {}
        print_json({"file": str(found.file), **saved, **found.report.plain()})
        return
    if found.ref:
        out.print(escape(f"{found.ref}: {found.why or 'nothing changed'}"))
    if to:
        out.print(escape(str(to)))
    out.print(escape(repr(found.report)))


def saved(folder: str, name: str, *, again: bool, to: Path | None, as_json: bool) -> None:
    """Print what rows are saved, or what is known of some of them. Raises UnknownName and Damaged."""
    if name:
        with row_bar(quiet=as_json) as listen:
            found = Session(folder).saved_rows(name, again=again, to=to, listen=listen)
        if as_json:
            print_json({"ref": str(found.ref), "file": str(found.file), **found.report.plain()})
            return
        out.print(escape(f"{found.ref}{': made again, the same' if again else ''}\n{found.file}\n{found.report!r}"))
        return
    if again or to:
        raise click.UsageError("Missing argument 'NAME'.")
    several = Session(folder).features.saved()
    if as_json:
        print_json({"saved": several})
        return
    table = _table("saved", "rows", "features", "known until", "from", "made")
    for one in several:
        until = one["until"] or "[dim]its views' versions[/]"
        ref = escape(f"{one['name']}@{one['digest'][:12]}")
        table.add_row(ref, f"{one['rows']:,}", str(len(one["features"])), until, escape(one["from"]), one["made"][:16].replace("T", " "))
    said = table if several else "nothing is saved yet; `tidemill features get … --save NAME` does that"
    (out if out.is_terminal else Terminal(width=1000)).print(said)  # a pipe has no edge


def materialise(folder: str, views: Sequence[str], until: str | None, *, as_json: bool) -> None:
    """Put views into the online store. Raises UnknownName, DefinitionError and StoreError."""
    with progress(quiet=as_json) as bar:
        tasks = dict[str, TaskID]()

        def listen(view: str, done: int, entities: int) -> None:
            if view not in tasks:
                tasks[view] = bar.add_task(view)
            bar.update(tasks[view], completed=done, total=entities)

        session = Session(folder)
        written = session.materialise(views, until=until, listen=listen)
    if as_json:
        print_json({"written": written})
        return
    for name, many in written.items():
        out.print(escape(f"{name}: {many:,} entities written" if many else f"{name}: nothing new"))
    for name in (name for name in views if name not in written):
        out.print(escape(f"{name}: computed from the request; the dataset whose columns it reads is built"))
    if not session.project.all(FeatureView):
        out.print("no view of an entity is declared; a tm.FeatureView is one")


def list_views(folder: str, *, as_json: bool) -> None:
    """Print the views of a project."""
    found = Session(folder).features.list()
    if as_json:
        print_json({"views": found})
        return
    if not found:
        out.print("no view is declared; a tm.FeatureView or a tm.RequestView is one")
        return
    cells = {name: [CELLS[name](view) for view in found] for name in CELLS}
    order = [name for name in BY_WORTH if any(cells[name])]

    def table(left_out: int) -> Table:
        shown = order[: len(order) - left_out]
        grid = _table()
        for name in (name for name in CELLS if name in shown):
            grid.add_column(name, justify="right" if name in RIGHT else "left", no_wrap=True)
        for row in zip(*(cells[name] for name in CELLS if name in shown), strict=True):
            grid.add_row(*row)
        return grid

    if out.is_terminal:
        out.print(fitting(table, len(order) - 1))
    else:  # a pipe has no edge
        Terminal(width=1000).print(table(0))
    clocks = {view["freshness"]["now"] for view in found if view["freshness"] and view["freshness"]["clock"] == "replay"}
    said = [f"age: by the replay's clock, {', '.join(sorted(clocks))}"] if clocks else []
    said += ["* of an earlier definition: what is declared now is not built yet"] if any(map(_edited, found)) else []
    said += [f"damaged: {DAMAGED}"] if any(map(_damaged, found)) else []
    said += [f"erased: {ERASED}"] if any(_bytes(view) == "erased" for view in found) else []
    said += [] if any(view["newest"] for view in found) else [NEVER]
    for line in said:
        out.print(f"[dim]{line}[/]")


def _edited(view: Plain) -> bool:
    return bool(view["newest"] and view["newest"]["of_an_earlier_definition"])


def _bytes(view: Plain) -> str:
    return view["newest"]["bytes"] if view["newest"] else ""


def _damaged(view: Plain) -> bool:
    return _bytes(view) == "damaged"


def _version(view: Plain) -> str:
    if view["newest"] is None:
        return "[dim]not built[/]"
    return f"{view['newest']['version']}{'[yellow]*[/]' if _edited(view) else ''}{AWAY.get(_bytes(view), '')}"


def _age(view: Plain) -> str:
    seconds = view["freshness"] and view["freshness"]["seconds"]
    return "–" if seconds is None else span(seconds)


CELLS: dict[str, Callable[[Plain], str]] = {
    "view": lambda view: f"[bold]{escape(view['name'])}[/]",
    "from": lambda view: escape(view["project"]),
    "entity": lambda view: escape(view["entity"]["name"]) if view["entity"] else "[dim]the request[/]",
    "features": lambda view: str(len(view["features"])),
    "values": lambda view: str(view["values"]),
    "nulls": lambda view: percent(view["null_share"]),
    "age": _age,
    "version": _version,
    "serves": lambda view: escape(", ".join(view["deployments"])),
    "owner": lambda view: escape(view["owner"]),
    "tags": lambda view: escape(", ".join(view["tags"])),
}
BY_WORTH = ("view", "version", "age", "nulls", "from", "entity", "features", "serves", "owner", "tags", "values")  # what goes last
RIGHT = ("features", "values", "nulls", "age")


def span(seconds: float) -> str:
    """How long something is ago, roughly.

    >>> span(5_000), span(59), span(200_000), span(600)
    ('83 min', '59 s', '2 d', '10 min')
    """
    unit, length = next((unit, length) for unit, length, least in UNITS if seconds >= least or unit == "s")
    return f"{seconds / length:.0f} {unit}"


def percent(share: float | None) -> str:
    """A share; what is not quite nothing does not look like it.

    >>> percent(0.0), percent(0.00001), percent(0.0312), percent(1.0), percent(None)
    ('0 %', '<0.1 %', '3.1 %', '100 %', '–')
    """
    if share is None:
        return "–"
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.3g} %" if share in (0, 1) else f"{100 * share:.1f} %"


def size(count: int | None) -> str:
    """Bytes for people.

    >>> size(807_173), size(12), size(None)
    ('807 kB', '12 bytes', 'an unknown number of bytes')
    """
    if count is None:
        return "an unknown number of bytes"
    unit, length = next(((unit, length) for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= length), ("bytes", 1))
    return f"{count / length:,.3g} {unit}" if length > 1 else f"{count} bytes"


def show_view(folder: str, name: str, *, as_json: bool) -> None:
    """Print all that is known of a view or of one of its features. Raises UnknownName."""
    found = Session(folder).features.show(name)
    if as_json:
        print_json(found)
        return
    entity = f"of {found['entity']['name']} (key {', '.join(found['entity']['key'])})" if found["entity"] else "of the request itself"
    out.print(f"[bold]{escape(name)}[/]  {found['kind']} {escape(entity)}")
    about = [("", found["description"]), ("owner", found["owner"]), ("tags", ", ".join(found["tags"]))]
    about += [("entity", _entity(found["entity"]))] if found["entity"] else []
    about += [("declared", found["declared_at"]), *told(found)]
    out.print(lines(*((word, escape(text)) for word, text in about if text)))
    _print_definition(found["definition"])
    out.print()
    out.print(lines(*_up(found["dataset"]), *_bound(found["output_of"])))
    out.print()
    _print_users(found)
    out.print()
    if found["newest"] is None:
        out.print(f"[dim]{NEVER}[/]")
        return
    out.print(lines(*_versions(found), *_state(found)))
    _print_statistics(found["statistics"], found["name"], found["newest"]["version"])


def _entity(entity: Plain) -> str:
    """What is said of an entity for people."""
    owner = f"owner {entity['owner']}" if entity["owner"] else ""
    return "; ".join(text for text in (entity["description"], owner, ", ".join(entity["tags"])) if text)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _print_definition(definition: Plain) -> None:
    shared = [("windows", ", ".join(definition.get("windows", ()))), ("ttl", definition.get("ttl", "")), ("rows", definition.get("filter"))]
    out.print(lines(*((word, escape(f"where {text}" if word == "rows" else text)) for word, text in shared if text)))
    table = _table("feature", "type", "made by", "")
    for name, one in definition["features"].items():
        table.add_row(escape(name), one["type"], escape(one["made_by"]), f"[dim]{escape(one['description'])}[/]")
    out.print()
    out.print(table)
    if definition["source"]:
        out.print(_code(definition["source"], "python"))


def _code(text: str, language: str) -> Text:
    """A text with the colours of its language, folded where the terminal ends."""
    found = Syntax(plain(text), language, theme="ansi_dark", background_color="default").highlight(plain(text))
    found.rstrip()
    found.no_wrap = False
    return found


def _up(dataset: Plain) -> list[tuple[str, str | Text]]:
    """What a view is made from."""
    version = f"@{dataset['version']}" if dataset["version"] else ""
    rows = "" if dataset["rows"] is None else f", {dataset['rows']:,} rows"
    told: list[tuple[str, str | Text]] = [("from", escape(f"dataset {dataset['name']}{version}{rows}, known at {dataset['known_at']}"))]
    if dataset["query"]:
        told.append(("", _code(dataset["query"], "sql")))
    for one in dataset["sources"]:
        known = f"@{one['version']}, {size(one['bytes'])}" if one["version"] else ""
        told.append(("", escape(f"source {one['path']}{known}")))
    return told


def _bound(model: Plain | None) -> list[tuple[str, str | Text]]:
    """The model whose output a view is."""
    if model is None:
        return []
    named = escape(", ".join(model["versions"])) if model["digest"] else "[red]not in this ledger[/]"
    learned = f"has learned what was known until {model['learned_until']}" if model["learned_until"] else ""
    wrong = [("", f"[red]{escape(model['wrong'])}[/]")] if model["wrong"] else []
    return [("output of", "  ".join(text for text in (escape(model["ref"]), named, learned) if text)), *wrong]


def _print_users(found: Plain) -> None:
    """Who uses a view, and which version of it."""
    table = _table("used by", "", "bound to")
    for one in found["deployments"]:
        replayed = ", in a replay" if one["branch"] == "replay" else ""
        serves = f"{one['champion']} serves since {one['since'][:10]}{replayed}" if one["champion"] else "nothing serves there yet"
        table.add_row(escape(f"deployment {one['deployment']}"), escape(serves), one["bound_to"])
    for one in found["models"]:
        numbers = [label.rpartition("/")[2] for label in one["versions"]]
        named = [f"version{'s' if len(numbers) > 1 else ''} {_numbers(numbers)}"] if numbers else []
        named += [f"{one['without_number']} without a number"] if one["without_number"] else []
        table.add_row(escape(f"model {one['model']}"), escape(", ".join(named)), one["bound_to"])
    for one in found["saved"]:
        table.add_row(escape(f"saved rows {one}"), "", "")
    out.print(table if table.row_count else lines(("used by", "nothing yet")))


def _numbers(numbers: Sequence[str]) -> str:
    """Numbers of versions, the first and the last of many.

    >>> _numbers(["1", "2"]), _numbers(["1", "2", "4", "7"])
    ('1, 2', '1 … 7 (4 of them)')
    """
    return ", ".join(numbers) if len(numbers) < 4 else f"{numbers[0]} … {numbers[-1]} ({len(numbers)} of them)"


def _versions(found: Plain) -> list[tuple[str, str | Text]]:
    told = []
    for one in found["versions"][:VERSIONS]:
        newest = one["version"] == found["newest"]["version"]
        mark = "" if not newest else "  of an earlier definition" if found["newest"]["of_an_earlier_definition"] else "  as declared"
        told.append(f"{one['version']}  built {one['built'][:16].replace('T', ' ')}, {one['rows']:,} rows[dim]{mark}[/]")
    more = len(found["versions"]) - VERSIONS
    told += [f"[dim]and {more} before; --json has all[/]"] if more > 0 else []
    return [("version" if i == 0 else "", text) for i, text in enumerate(told)]


def _state(found: Plain) -> list[tuple[str, str | Text]]:
    fresh, cost = found["freshness"], found["cost"]
    if fresh is None:
        why = {"damaged": f"[red]damaged[/]: {DAMAGED}", "erased": f"[yellow]erased[/]: {ERASED}"}
        return [("", why.get(_bytes(found), "its bytes are no longer kept; the next run builds it again"))]
    clock = f"the replay's clock stands at {fresh['now']}" if fresh["clock"] == "replay" else f"it is {fresh['now'][:19]}Z"
    old = (
        f"{span(fresh['seconds'])} old: the newest row was known at {fresh['newest'][:19]}Z, {clock}"
        if fresh["newest"]
        else "no row is known"
    )
    seconds = "an unknown time" if cost["seconds"] is None else f"{cost['seconds']:.3g} s"
    several = f", with {', '.join(cost['shared_with'])} and the requests' own columns" if cost["shared_with"] else ""
    several = several or (", with the requests' own columns" if cost["requests"] else "")
    paid = f"{seconds} to compute, {size(cost['bytes'])} to store{several}"
    return [("fresh", escape(old)), ("cost", escape(paid))]


def _print_statistics(statistics: Plain, view: str, newest: str) -> None:
    columns = {name.removeprefix(f"{view}__"): one for name, one in statistics["features"].items()}
    if not columns:
        out.print("[dim]no statistics: neither stored rows nor a training set hold these values[/]")
        return
    earlier = f", made from version {statistics['of_version']}" if statistics["of_version"] != newest else ""
    out.print()
    out.print(f"[dim]{next(iter(columns.values()))['count']:,} rows of {escape(statistics['over'])}{earlier}[/]")
    shown = dict(list(columns.items())[:ROWS])
    numbers = {name: one for name, one in shown.items() if "top" not in one}
    if numbers:
        out.print(fitting(lambda left_out: _numbers_table(numbers, left_out), 4))
    words = _table("value", "nulls", "distinct", "most frequent")
    for name, one in shown.items():
        top = ", ".join(f"{found['value']} {percent(found['share'])}" for found in one.get("top", ()))
        if "top" in one:
            words.add_row(escape(name), percent(one["null_share"]), f"{one['distinct']:,}", escape(top))
    if words.row_count:
        out.print(words)
    if len(columns) > ROWS:
        out.print(f"[dim]and {len(columns) - ROWS:,} more; --json has all[/]")


def _numbers_table(columns: Mapping[str, Plain], left_out: int) -> Table:
    """What numbers are like. A terminal that is too narrow lacks the quantiles beside the median, then those near the ends."""
    quantiles = {"0.05": "5 %", "0.25": "25 %", "0.5": "median", "0.75": "75 %", "0.95": "95 %"}
    kept = [key for key in quantiles if key not in ("0.25", "0.75", "0.05", "0.95")[:left_out]]
    table = _table()
    table.add_column("value", no_wrap=True)
    for name in ("nulls", "mean", "std", "min", *(quantiles[key] for key in kept), "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in columns.items():
        figures = (one["mean"], one["std"], one["min"], *(one["quantiles"].get(key) for key in kept), one["max"])
        table.add_row(escape(name), percent(one["null_share"]), *("–" if value is None else f"{value:.4g}" for value in figures))
    return table


def search(folder: str, text: str, *, as_json: bool) -> None:
    """Print the views and features in which words are found. Raises DataError."""
    found = Session(folder).features.search(text)
    if as_json:
        print_json({"found": found})
        return
    table = _table("found", "in", "")
    for hit in found:
        for place, one in enumerate(hit["where"]):
            table.add_row("" if place else f"[bold]{escape(hit['name'])}[/]", f"[dim]{one['what']}[/]", _marked(one["text"], text))
    out.print(table if found else escape(f"nothing is found for {text!r}; `tidemill features list` shows all views"))


def _marked(text: str, wanted: str) -> Text:
    """A text with the words that were found in it."""
    marked = Text(" ".join(plain(text).split()))
    marked.highlight_words(wanted.split(), style="bold green", case_sensitive=False)
    return marked
