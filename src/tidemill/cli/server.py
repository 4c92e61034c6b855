"""`tidemill server`: experiments, runs and registered models over MLflow's protocol; `tidemill migrate` for the ledger under it."""

from pathlib import Path

from rich.markup import escape

from tidemill import project
from tidemill.cli.console import out, print_json
from tidemill.web import logged, serve_tracking


def server(home: Path, host: str, port: int, *, as_json: bool) -> None:
    """Serve until Ctrl-C; print the address, or an object with it. A folder that is not there becomes a project."""
    ledger = project.ensure(home).ledger()

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "home": str(home)})
            return
        out.print(f"tracking server of {escape(str(home))}: {escape(url)}")
        out.print(f"[dim]export MLFLOW_TRACKING_URI={escape(url)}[/]")
        out.print("Ctrl-C ends it")

    try:
        with logged(as_json=as_json):
            serve_tracking(ledger, host, port, ready=ready)
    finally:
        ledger.records.close()


def migrate(folder: str, *, as_json: bool) -> None:
    """Bring the project's ledger to the format of this version."""
    with project.find(folder).writing("migrate", wait=60) as ledger:
        records = ledger.records
    if as_json:
        print_json({"records": records.where, "before": records.found, "format": records.format})
    elif records.found == records.format:
        out.print(f"the ledger has format {records.format} already: {escape(records.where)}")
    else:
        before = f"format {records.found} → " if records.found else "new, format "
        out.print(f"{before}{records.format}: {escape(records.where)}")
