"""`tidemill replay` and `tidemill policy compare`: the loop over the past."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidemill import loop, project
from tidemill.cli.console import Steps, figure, link, out, print_json
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
}
COLUMNS = (("roc_auc", "ROC AUC", 3, 1), ("log_loss", "log loss", 3, -1), ("calibration_error", "cal. error", 3, -1))


def replay(folder: str, deployment: str, *, as_json: bool) -> None:
    """Replay the past of a project; show it as it goes on, or print one object at its end."""
    declared = project.load(folder)
    policy = policy_of(declared, deployment)
    with declared.writing("replay", wait=600) as ledger:
        built = _build(ledger, policy.monitor.deployment.model.task, quiet=as_json)
        start, end = declared.settings.instant("replay.train_until"), declared.settings.instant("replay.end")
        job = Replay(built, policy, start, end, declared.timezone)
        screen = _Screen(declared.timezone, str(declared.settings["project.positive"]))
        with nullcontext() if as_json else screen.live:
            branch, cached = loop.replay(ledger, job, listen=screen.update)
        serves = serving_branch(ledger, branch.name)
        live = serves.id if serves and serves.kind == "live" else ""
    if as_json:
        print_json(branch.result)
        return
    _print_result(branch.result, cached, declared)
    path = _write_report(branch.result, declared, policy, str(branch.parts["model"]["name"]))
    out.print(Text.assemble("\nreport   ", link(_short(path), f"file://{path}")))
    if live:
        out.print(f"next     `tidemill up` and `tidemill lineage {branch.name}` go on with the live branch {live}, not with this replay")
    else:
        out.print(f"next     `tidemill up` serves the champion; `tidemill lineage {branch.name}` shows where it comes from")


def _build(ledger: Ledger, task: Any, *, quiet: bool) -> Built:
    with Steps().shown(quiet=quiet) as steps:
        return loop.build(loop.prepare(ledger), task, listen=steps)


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
    """Frozen against loop by month; the better figure is bold. `positive` is what the positive class is called."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("month")
    for name in ("rows", f"share {escape(positive)}"):
        table.add_column(name, justify="right")
    for _, title, _, _ in COLUMNS:
        table.add_column(f"{title}\nfrozen", justify="right")
        table.add_column("\nloop", justify="right")
    for month in months:
        resolved = "" if month["resolved"] >= 0.995 else f" [dim]({month['resolved']:.0%} known)[/]"
        table.add_row(month["month"] + resolved, f"{month['rows']:,}", figure(month["share_positive"]), *_pairs(month))
    if mean and months:
        table.add_section()
        table.add_row("mean", f"{sum(month['rows'] for month in months):,}", "", *_pairs(mean))
    return table


def _pairs(both: dict[str, Any]) -> list[str]:
    cells = []
    for name, _, digits, sign in COLUMNS:
        frozen, served = both["frozen"][name], both["loop"][name]
        better = frozen is not None and served is not None and round(sign * (served - frozen), digits) > 0
        cells += [figure(frozen, digits), f"[bold green]{figure(served, digits)}[/]" if better else figure(served, digits)]
    return cells


def _event(event: dict[str, Any], width: int = 110) -> Text:
    why = event["why"] if len(event["why"]) <= width else event["why"][: width - 1] + "…"
    colour = COLOURS.get(event["kind"], "cyan")
    text = f"{event['at'][:10]}  [{colour}]{event['kind']:<13}[/] {escape(event['subject']):<11} [dim]{escape(why)}[/]"
    return Text.from_markup(text)


class _Screen:
    """The live table of a replay: months, the newest events, the clock."""

    def __init__(self, timezone: str, positive: str) -> None:
        self.timezone, self.positive = timezone, positive
        self.live = Live(Text("training the first model …", style="dim"), console=out, refresh_per_second=8, transient=True)

    def update(self, progress: Progress) -> None:
        """Draw again."""
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            show(progress.now, self.timezone)[:10], ProgressBar(1.0, progress.share, width=40), f"{progress.state.champion.label} serves"
        )
        newest = [_event(event, max(out.width - 45, 30)) for event in progress.events[-8:]]
        month = show(progress.now, self.timezone)[:7]
        counted = [one for one in progress.months if one["month"] < month or progress.share == 1]
        self.live.update(Group(months_table(counted, self.positive), Text(""), *newest, Text(""), bar))


def _print_result(result: dict[str, Any], cached: bool, declared: Project) -> None:
    out.print(f"\n[bold]{escape(declared.name)}[/]  {escape(str(declared.settings['project.objective']))}\n")
    out.print(months_table(result["months"], str(declared.settings["project.positive"]), result["mean"]))
    gain = result["gain"]
    if gain:
        auc, loss = gain["roc_auc"], gain["log_loss"]
        interval = f"95 % interval over days {auc['low']:+.4f} to {auc['high']:+.4f}"
        out.print(f"\nloop against frozen: ROC AUC {auc['estimate']:+.4f} ({interval}), log loss {-loss['estimate']:+.4f}\n")
    for event in result["events"]:
        out.print(_event(event, max(out.width - 45, 40)), no_wrap=True, overflow="ellipsis")
    cost = result["cost"]
    out.print(
        f"\ncost     {cost['trainings']} trainings, {cost['row_rounds'] / 1e6:,.0f} M rows × rounds, {cost['predictions']:,} predictions"
    )
    if cached:
        out.print("[dim]nothing changed since this replay was run: answered from the ledger[/]")


def compare(folder: str, *, as_json: bool) -> None:
    """Replay the same history under the policies and models of a project's comparison."""
    declared = project.load(folder)
    comparison = declared.only(PolicyComparison)
    with declared.writing("policy compare", wait=600) as ledger:
        built = _build(ledger, comparison.policy.monitor.deployment.model.task, quiet=as_json)
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
        table = Table.grid(padding=(0, 2))
        for (name, model_name), share in self.shares.items():
            table.add_row(model_name, name, ProgressBar(1.0, share, width=30))
        self.live.update(table)


def _print_comparison(found: dict[str, Any], comparison: PolicyComparison) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    spans = [" to ".join(days) for days in (comparison.choose_on, comparison.report_on)]
    for name in ("model", "policy"):
        table.add_column(name)
    for name in ("choose\nlog loss", "\nROC AUC", "report\nlog loss", "\nROC AUC", "train-\nings", "cost", "promo-\ntions"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["policies"]:
        style = "bold green" if row["chosen"] else ""
        figures = [figure(row[span][name], 4) for span in ("choose", "report") for name in ("log_loss", "roc_auc")]
        cost = [str(row["cost"]["trainings"]), f"{row['cost']['row_rounds'] / 1e6:,.0f}", str(row["promotions"])]
        table.add_row(row["model"], row["policy"] + ("\n← chosen" if row["chosen"] else ""), *figures, *cost, style=style)
    for one in found["refused"]:
        table.add_row(one["model"], "refused", *["–"] * 7, style="yellow")
    out.print(table)
    out.print(f"[dim]choose: {spans[0]}; report: {spans[1]}; cost: M rows × rounds[/]")
    for one in found["refused"]:
        out.print(f"[yellow]refused[/]  {escape(one['model'])}: {escape(one['why'])}")
    loss, best = found["regret"]["log_loss"], found["regret"]["best"]
    out.print(f"\nchosen   {found['chosen']['model']}, {found['chosen']['policy']}: {found['rule']}")
    interval = f"95 % interval {loss['low']:+.4f} to {loss['high']:+.4f}"
    out.print(f"regret   {loss['estimate']:+.4f} log loss ({interval}) on {spans[1]} against {best['model']}, {best['policy']}")
    out.print("[dim]         the best is the one that came out best on those same days, so the regret and its interval lean upwards[/]")
