"""`tidemill replay` and `tidemill policy compare`: the loop over the past."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidemill import loop, project
from tidemill.cli.console import Steps, figure, out, print_json
from tidemill.core import show
from tidemill.ledger import Ledger
from tidemill.loop import Built, PolicyComparison, Progress, Replay
from tidemill.project import Project
from tidemill.session import policy_of
from tidemill.store import store_error

COLOURS = {"promoted": "green", "rolled back": "red", "gate refused": "yellow", "drift found": "magenta", "quality drop": "magenta"}
METRICS = (("roc_auc", "ROC AUC", 3, 1), ("log_loss", "log loss", 3, -1), ("calibration_error", "calibration", 3, -1))


@click.command()
@click.option("--deployment", default="", help="Which deployment, where the project has several.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one object.")
@click.pass_obj
def replay(obj: dict[str, Any], deployment: str, as_json: bool) -> None:
    """Replay the past: the model in the loop against the same model left alone."""
    declared = project.load(obj["folder"])
    policy = policy_of(declared, deployment)
    with declared.writing("replay", wait=600) as ledger:
        built = _build(ledger, declared, policy.monitor.deployment.model.task, quiet=as_json)
        start, end = declared.settings.instant("replay.train_until"), declared.settings.instant("replay.end")
        job = Replay(built, policy, start, end, declared.timezone)
        screen = _Screen(declared.timezone)
        with nullcontext() if as_json else screen.live:
            branch, cached = loop.replay(ledger, job, listen=screen.update)
    if as_json:
        print_json(branch.result)
        return
    _print_result(branch.result, cached, declared)
    path = _write_report(branch.result, declared, policy.name, str(branch.parts["model"]["name"]))
    out.print(f"\nreport   [link=file://{path}]{_short(path)}[/link]")
    out.print(f"next     `tidemill up` serves the champion; `tidemill lineage {branch.name}` shows where it comes from")


def _build(ledger: Ledger, declared: Project, task: Any, *, quiet: bool) -> Built:
    with Steps().shown(quiet=quiet) as steps:
        return loop.build(loop.prepare(ledger), task, listen=steps)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _write_report(result: dict[str, Any], declared: Project, policy: str, model: str) -> Path:
    from tidemill.web import render_report

    path = declared.state / "reports" / "replay.html"
    names = {name: str(declared.settings[f"project.{name}"]) for name in ("name", "objective", "owner")}
    html = render_report(result, project=names, policy=policy, model=model, timezone=declared.timezone)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(html, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise store_error(error, str(path)) from error
    return path


def months_table(months: list[dict[str, Any]], mean: dict[str, Any] | None = None) -> Table:
    """Frozen against loop by month; the better figure is bold."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("month")
    for name in ("rows", "share true"):
        table.add_column(name, justify="right")
    for _, title, _, _ in METRICS:
        table.add_column(f"{title}\nfrozen", justify="right")
        table.add_column("\nloop", justify="right")
    for month in months:
        resolved = "" if month["resolved"] >= 0.995 else f" [dim]({month['resolved']:.0%} known)[/]"
        table.add_row(month["month"] + resolved, f"{month['rows']:,}", figure(month["share_late"]), *_pairs(month))
    if mean and months:
        table.add_section()
        table.add_row("mean", f"{sum(month['rows'] for month in months):,}", "", *_pairs(mean))
    return table


def _pairs(both: dict[str, Any]) -> list[str]:
    cells = []
    for name, _, digits, sign in METRICS:
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

    def __init__(self, timezone: str) -> None:
        self.timezone = timezone
        self.live = Live(Text("training the first model …", style="dim"), console=out, refresh_per_second=8, transient=True)

    def update(self, progress: Progress) -> None:
        """Draw again."""
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            show(progress.now, self.timezone)[:10], ProgressBar(1.0, progress.share, width=40), f"{progress.state.champion.label} serves"
        )
        newest = [_event(event, max(out.width - 45, 30)) for event in progress.events[-8:]]
        month = show(progress.now, self.timezone)[:7]
        ended = [one for one in progress.months if one["month"] < month]
        self.live.update(Group(months_table(ended), Text(""), *newest, Text(""), bar))


def _print_result(result: dict[str, Any], cached: bool, declared: Project) -> None:
    out.print(f"\n[bold]{escape(declared.name)}[/]  {escape(str(declared.settings['project.objective']))}\n")
    out.print(months_table(result["months"], result["mean"]))
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


@click.group()
def policy() -> None:
    """Retraining policies."""


@policy.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as one object.")
@click.pass_obj
def compare(obj: dict[str, Any], as_json: bool) -> None:
    """Replay the same history under several policies and models; what is each worth? What serves is not touched."""
    declared = project.load(obj["folder"])
    comparison = declared.only(PolicyComparison)
    with declared.writing("policy compare", wait=600) as ledger:
        built = _build(ledger, declared, comparison.policy.monitor.deployment.model.task, quiet=as_json)
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
    for name in (f"log loss\n{spans[0]}", "ROC AUC", f"log loss\n{spans[1]}", "ROC AUC", "trainings", "M rows × rounds", "promotions"):
        table.add_column(name, justify="right")
    for row in found["policies"]:
        style = "bold green" if row["chosen"] else ""
        figures = [figure(row[span][name], 4) for span in ("choose", "report") for name in ("log_loss", "roc_auc")]
        cost = [str(row["cost"]["trainings"]), f"{row['cost']['row_rounds'] / 1e6:,.0f}", str(row["promotions"])]
        table.add_row(row["model"], row["policy"] + (" ← chosen" if row["chosen"] else ""), *figures, *cost, style=style)
    out.print(table)
    loss, best = found["regret"]["log_loss"], found["regret"]["best"]
    out.print(f"\nchosen   {found['chosen']['model']}, {found['chosen']['policy']}: {found['rule']}")
    interval = f"95 % interval {loss['low']:+.4f} to {loss['high']:+.4f}"
    out.print(f"regret   {loss['estimate']:+.4f} log loss ({interval}) on {spans[1]} against {best['model']}, {best['policy']}")
