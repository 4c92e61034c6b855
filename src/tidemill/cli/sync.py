"""`tidemill sync`: send what runs have logged and nobody has taken yet."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from tidemill.cli.console import err, out, print_json
from tidemill.core import MissingFile, TidemillError
from tidemill.tracking import Shipper, destination_of, read_head, segments, spool_of, user_spool


def sync(folder: str, spools: tuple[Path, ...], to: str, *, again: bool, as_json: bool) -> bool:
    """Ship every segment of some spools, by default the project's and the user's; tell what was sent and what stays, with the reason.
    False when something stays."""
    places = _places(folder, spools)
    aside = [path for spool in places for ending in ("refused", "damaged") for path in segments(spool, ending=ending)]
    for path in aside if again else ():
        path.rename(path.with_suffix(".seg"))
    found = [path for spool in places for path in segments(spool)]
    total = sum(_size(path) for path in found)
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not found) as bar:
        task, sent = bar.add_task("", total=total), dict[Path, int]()

        def told(path: Path, at: int) -> None:
            sent[path] = at
            bar.update(task, completed=sum(sent.values()))

        shipper = Shipper(destination_of(to) if to else "", told=told)
        rows = _ship(found, shipper)
    rows += [_row(path, why=f"it lies aside as .{path.suffix[1:]}: --again tries again") for path in aside if path.exists()]
    if as_json:
        print_json({"segments": rows, "missing": shipper.missing, "refused": shipper.refused})
    else:
        _print(rows)
        for name in shipper.missing:
            out.print(f"[red]missing[/]  {escape(name)}: neither the spool nor the destination has it")
        for why in shipper.refused:
            out.print(f"[red]refused[/]  {escape(why)}")
    return all(row["sent"] or row["why"] == _WRITTEN for row in rows)


_WRITTEN = "the run goes on"


def _places(folder: str, spools: tuple[Path, ...]) -> list[Path]:
    for spool in spools:
        if not spool.is_dir():
            raise MissingFile("there is no such folder", where=str(spool), hint="name a folder of segments (*.seg)")
    return list(spools) or list(dict.fromkeys([spool_of(destination_of(folder)), user_spool()]))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its companion was faster
        return 0


def _row(path: Path, why: str = "") -> dict[str, Any]:
    return {"segment": path.stem, "run": path.stem.rpartition("-")[0], "to": "", "sent": False, "why": why}


def _ship(paths: list[Path], shipper: Shipper) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        row = _row(path)
        try:
            row["to"] = read_head(path).to
            row["sent"] = shipper.ship(path)
            row["why"] = "" if row["sent"] else _WRITTEN
        except FileNotFoundError:  # its companion was faster
            row["sent"] = True
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
