"""`tidemill sync`: send what runs have logged and nobody has taken yet."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from tidemill.cli.console import err, out, print_json
from tidemill.core import MissingFile, TidemillError
from tidemill.tracking import Shipper, destination_of, read_head, segments, spool_of, user_spool


def sync(folder: str, spools: tuple[Path, ...], to: str, *, as_json: bool) -> bool:
    """Ship every segment of some spools, by default the project's and the user's; tell what was sent and what stays, with the reason.
    False when something stays."""
    found = [path for spool in _places(folder, spools) for path in segments(spool)]
    total = sum(path.stat().st_size for path in found)
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not found) as bar:
        task, sent = bar.add_task("", total=total), dict[Path, int]()

        def told(path: Path, at: int) -> None:
            sent[path] = at
            bar.update(task, completed=sum(sent.values()))

        rows = _ship(found, Shipper(destination_of(to) if to else "", told=told))
    if as_json:
        print_json({"segments": rows})
    else:
        _print(rows)
    return all(row["sent"] or row["why"] == _WRITTEN for row in rows)


_WRITTEN = "the run goes on"


def _places(folder: str, spools: tuple[Path, ...]) -> list[Path]:
    for spool in spools:
        if not spool.is_dir():
            raise MissingFile("there is no such folder", where=str(spool), hint="name a folder of segments (*.seg)")
    return list(spools) or list(dict.fromkeys([spool_of(destination_of(folder)), user_spool()]))


def _ship(paths: list[Path], shipper: Shipper) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        row: dict[str, Any] = {"segment": path.stem, "run": path.stem.rpartition("-")[0], "to": "", "sent": False, "why": ""}
        try:
            row["to"] = read_head(path).to
            row["sent"] = shipper.ship(path)
            row["why"] = "" if row["sent"] else _WRITTEN
        except (TidemillError, OSError) as error:
            row["why"] = error.what if isinstance(error, TidemillError) else str(error)
        rows.append(row)
    shipper.close()
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        out.print("nothing waits to be sent")
    for run in dict.fromkeys(row["run"] for row in rows):
        own = [row for row in rows if row["run"] == run]
        why = next((row["why"] for row in own if row["why"]), "")
        mark = f"[red]stays[/]  {escape(why)}" if why and why != _WRITTEN else f"[green]sent[/]   {escape(why)}"
        out.print(f"{run}  {mark}  [dim]{escape(own[0]['to'])}[/]")
