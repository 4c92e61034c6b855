"""`tidemill replay` and `tidemill policy compare`: the loop over the past."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidemill import features, loop, project
from tidemill.cli.console import Steps, figure, fitting, lines, link, out, print_json
from tidemill.cli.plain import plain
from tidemill.core import Event, show
from tidemill.ledger import Ledger
from tidemill.loop import Built, PolicyComparison, Progress, Replay, RetrainPolicy
from tidemill.project import Project
from tidemill.serving import Deployment
from tidemill.session import policy_of, serving_branch
from tidemill.store import store_error

COLOURS = {
    Event.PROMOTED: "green",
    Event.ROLLED_BACK: "red",
    Event.GATE_REFUSED: "yellow",
    Event.DRIFT_FOUND: "magenta",
    Event.QUALITY_DROP: "magenta",
    Event.SKEW_FOUND: "magenta",
}
COLUMNS = (("roc_auc", "ROC AUC", 3, 1), ("log_loss", "log loss", 3, -1), ("calibration_error", "cal. error", 3, -1))


def replay(folder: str, deployment: str, *, as_json: bool, whole: bool) -> None:
    """Replay the past of a project; show it as it goes on, or print one object at its end. An event is one line, cut at the width of
    the terminal, unless the `whole` is wanted."""
    declared = project.load(folder)
    policy = policy_of(declared, deployment)
    with declared.writing("replay", wait=600) as ledger:
        built = _build(ledger, declared, policy, quiet=as_json)
        start, end = declared.settings.instant("replay.train_until"), declared.settings.instant("replay.end")
        job = Replay(built, policy, start, end, declared.timezone)
        screen = _Screen(declared.timezone, str(declared.settings["project.positive"]))
        with nullcontext() if as_json else screen.live:
            branch, cached = loop.replay(ledger, job, listen=screen.update)
        serves = serving_branch(ledger, branch.name)
        live = serves.id if serves and serves.kind == "live" else ""
    path = _write_report(branch.result, declared, policy, str(branch.parts["model"]["name"]))
    if as_json:
        print_json(_plain(branch.result) | {"report": str(path)})
        return
    _print_result(branch.result, cached, declared, whole=whole)
    if live:
        then = f"`tidemill up` and `tidemill lineage {branch.name}` go on with the live branch {live}, not with this replay"
    else:
        then = f"`tidemill up` serves the champion; `tidemill lineage {branch.name}` shows where it comes from"
    out.print()
    out.print(lines(("report", link(_short(path), f"file://{path}")), ("next", escape(then))))


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """The result for programs: days as dates, which the ledger keeps as numbers."""
    return result | {"daily": [one | {"day": date.fromordinal(one["day"]).isoformat()} for one in result["daily"]]}


def _build(ledger: Ledger, declared: Project, policy: RetrainPolicy, *, quiet: bool) -> Built:
    features.withdraw_unshared(ledger, declared)
    with Steps().shown(quiet=quiet) as steps:
        return loop.build(loop.prepare(ledger), policy.monitor.deployment.model.task, listen=steps)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _write_report(result: dict[str, Any], declared: Project, policy: RetrainPolicy, model: str) -> Path:
    """One file for a project with one deployment; with several, one for each."""
    from tidemill.web import render_report

    several = len(declared.all(Deployment)) > 1
    path = declared.state / "reports" / (f"replay-{policy.monitor.name}.html" if several else "replay.html")
    names = {name: str(declared.settings[f"project.{name}"]) for name in ("name", "objective", "owner", "positive")}
    html = render_report(result, project=names, policy=policy.name, model=model, timezone=declared.timezone)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(html, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise store_error(error, str(path)) from error
    return path


def months_table(months: list[dict[str, Any]], positive: str, mean: dict[str, Any] | None = None) -> Table:
    """Frozen against loop by month; the better figure is bold. `positive` is what the positive class is called. A terminal that is too
    narrow lacks the calibration, then the share, the rows, the log loss."""
    return fitting(lambda left_out: _months_table(months, positive, mean, left_out), 4)


def _months_table(months: list[dict[str, Any]], positive: str, mean: dict[str, Any] | None, left_out: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    metrics = COLUMNS[: 3 if left_out < 1 else 2 if left_out < 4 else 1]
    late = any(month["resolved"] < 0.995 for month in months)
    names = ["month", *(["labels\nknown"] if late else []), *["rows", f"share\n{escape(positive)}"][: max(0, 3 - max(left_out, 1))]]
    for name in (*names, *(title for _, metric, _, _ in metrics for title in (f"{metric}\nfrozen", "\nloop"))):
        table.add_column(name, justify="left" if name == "month" else "right", no_wrap=True)
    for month in months:
        known = [f"{min(month['resolved'], 0.994):.0%}" if month["resolved"] < 0.995 else ""] if late else []
        counts = [f"{month['rows']:,}", figure(month["share_positive"])]
        table.add_row(*[month["month"], *known, *counts][: len(names)], *_pairs(month, metrics))
    if mean and months:
        table.add_section()
        counts = [f"{sum(month['rows'] for month in months):,}", ""]
        table.add_row(*["mean", *([""] if late else []), *counts][: len(names)], *_pairs(mean, metrics))
    return table


def _pairs(both: dict[str, Any], metrics: Sequence[tuple[str, str, int, int]]) -> list[str]:
    cells = []
    for name, _, digits, sign in metrics:
        frozen, served = both["frozen"][name], both["loop"][name]
        better = frozen is not None and served is not None and round(sign * (served - frozen), digits) > 0
        cells += [figure(frozen, digits), f"[bold green]{figure(served, digits)}[/]" if better else figure(served, digits)]
    return cells


def _events(events: list[dict[str, Any]], *, whole: bool = False) -> Table:
    """Each event in one line that the terminal cuts, or its reason whole, by words within its column."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for width in (10, 13, 11):
        table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    for event in events:
        kind = Text(event["kind"], style=COLOURS.get(event["kind"], "cyan"))
        why = Text(plain(event["why"]), style="dim", no_wrap=not whole, overflow=None if whole else "ellipsis")
        table.add_row(event["at"][:10], kind, escape(event["subject"]), why)
    return table


class _Screen:
    """The live table of a replay: months, the newest events, the clock."""

    def __init__(self, timezone: str, positive: str) -> None:
        self.timezone, self.positive = timezone, positive
        self.live = Live(Text("training the first model …", style="dim"), console=out, refresh_per_second=8, transient=True)

    def update(self, progress: Progress) -> None:
        """Draw again."""
        bar, serves = Table.grid(padding=(0, 1)), f"{progress.state.champion.label} serves"
        for _ in range(3):
            bar.add_column(no_wrap=True)
        width = max(min(40, out.width - len(serves) - 14), 4)
        bar.add_row(show(progress.now, self.timezone)[:10], ProgressBar(1.0, progress.share, width=width), escape(serves))
        month = show(progress.now, self.timezone)[:7]
        counted = [one for one in progress.months if one["month"] < month or progress.share == 1]
        self.live.update(Group(months_table(counted, self.positive), Text(""), _events(progress.events[-8:]), Text(""), bar))


def _print_result(result: dict[str, Any], cached: bool, declared: Project, *, whole: bool) -> None:
    out.print()
    out.print(lines((f"[bold]{escape(declared.name)}[/]", escape(str(declared.settings["project.objective"])))))
    out.print()
    out.print(months_table(result["months"], str(declared.settings["project.positive"]), result["mean"]))
    gain = result["gain"]
    if gain:
        auc, loss = gain["roc_auc"], gain["log_loss"]
        interval = f"95 % interval over days {auc['low']:+.4f} to {auc['high']:+.4f}"
        out.print()
        out.print(lines(("gain", f"loop against frozen: ROC AUC {auc['estimate']:+.4f} ({interval}), log loss {-loss['estimate']:+.4f}")))
    out.print()
    out.print(_events(result["events"], whole=whole))
    cost, told = result["cost"], list[tuple[str, str | Text]]()
    paid = f"{cost['trainings']} trainings, {_work(cost['row_rounds'])} rows × rounds, {cost['predictions']:,} predictions"
    told.append(("cost", paid))
    if cached:
        told.append(("", "[dim]nothing changed since this replay was run: answered from the ledger[/]"))
    out.print()
    out.print(lines(*told))


def compare(folder: str, *, as_json: bool) -> None:
    """Replay the same history under the policies and models of a project's comparison."""
    declared = project.load(folder)
    comparison = declared.only(PolicyComparison)
    with declared.writing("policy compare", wait=600) as ledger:
        built = _build(ledger, declared, comparison.policy, quiet=as_json)
        start, end = declared.settings.instant("replay.train_until"), declared.settings.instant("replay.end")
        waiting = _Waiting()
        with nullcontext() if as_json else waiting.live:
            found = loop.compare(ledger, built, comparison, start, end, declared.timezone, listen=waiting.update)
    if as_json:
        print_json(found)
    else:
        _print_comparison(found, comparison)


class _Waiting:
    """The replays of a comparison, one line each."""

    def __init__(self) -> None:
        self.shares: dict[tuple[str, str], float] = {}
        self.live = Live(Text("the first replay trains its first model …", style="dim"), console=out, refresh_per_second=4, transient=True)

    def update(self, policy: str, model: str, progress: Progress | None) -> None:
        """Draw again."""
        self.shares[policy, model] = progress.share if progress else 1.0
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        for (name, model_name), share in self.shares.items():
            policy_name = Text(name, no_wrap=True, overflow="ellipsis")
            table.add_row(escape(model_name), policy_name, ProgressBar(1.0, share, width=min(30, out.width // 4)))
        self.live.update(table)


def _print_comparison(found: dict[str, Any], comparison: PolicyComparison) -> None:
    spans = [" to ".join(days) for days in (comparison.choose_on, comparison.report_on)]
    out.print(fitting(lambda left_out: _policies_table(found, left_out), 4))
    out.print(f"[dim]choose: {spans[0]}; report: {spans[1]}; cost: rows × rounds[/]")
    told: list[tuple[str, str | Text]] = [
        ("[yellow]refused[/]", f"{escape(one['model'])}: {escape(one['why'])}") for one in found["refused"]
    ]
    loss, best = found["regret"]["log_loss"], found["regret"]["best"]
    told.append(("chosen", escape(f"{found['chosen']['model']}, {found['chosen']['policy']}: {found['rule']}")))
    interval = f"95 % interval {loss['low']:+.4f} to {loss['high']:+.4f}"
    regret = f"{loss['estimate']:+.4f} log loss ({interval}) on {spans[1]} against {best['model']}, {best['policy']}"
    lean = "the best is the one that came out best on those same days, so the regret and its interval lean upwards"
    out.print()
    out.print(lines(*told, ("regret", escape(regret)), ("", f"[dim]{lean}[/]")))


def _work(row_rounds: float) -> str:
    """Rows × rounds in millions, thousands where it is less than ten of them.

    >>> _work(605_211_600), _work(1_331_799_900), _work(86_400), _work(0)
    ('605 M', '1,332 M', '86 k', '0')
    """
    unit, sign = next(((unit, sign) for unit, sign in ((1e6, " M"), (1e3, " k")) if row_rounds >= 10 * unit), (1, ""))
    return f"{row_rounds / unit:,.0f}{sign}"


def _policies_table(found: dict[str, Any], left_out: int) -> Table:
    """A line for all policies that did the same. A terminal that is too narrow lacks the trainings and promotions, then the ROC AUC."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("model", no_wrap=True)
    table.add_column("policy", min_width=14)
    names = [
        ("choose\nlog loss", 0),
        ("ROC AUC", 3),
        ("report\nlog loss", 0),
        ("ROC AUC", 4),
        ("trained", 2),
        ("cost", 0),
        ("promoted", 1),
    ]
    kept = [place for place, (_, rank) in enumerate(names) if not 0 < rank <= left_out]
    for place in kept:
        table.add_column(names[place][0], justify="right", no_wrap=True)
    for row in found["policies"]:
        if row["same_as"]:
            continue
        figures = [figure(row[span][name], 4) for span in ("choose", "report") for name in ("log_loss", "roc_auc")]
        figures += [str(row["cost"]["trainings"]), _work(row["cost"]["row_rounds"]), str(row["promotions"])]
        same = [one["policy"] for one in found["policies"] if (one["model"], one["same_as"]) == (row["model"], row["policy"])]
        said = [escape(row["policy"]), *(f"[dim]the same: {escape(name)}[/]" for name in same), *(["← chosen"] if row["chosen"] else [])]
        style = "bold green" if row["chosen"] else ""
        table.add_row(escape(row["model"]), "\n".join(said), *(figures[place] for place in kept), style=style)
    for one in found["refused"]:
        table.add_row(escape(one["model"]), "refused", *["–"] * len(kept), style="yellow")
    return table
