"""`tidemill up`: the gateway and the status page in one process."""

from typing import Any

import click
from rich.markup import escape

from tidemill.cli.console import out, print_json
from tidemill.session import Session


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port; 0 takes a free one. Default: serve.port.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one object.")
@click.pass_obj
def up(obj: dict[str, Any], port: int | None, as_json: bool) -> None:
    """Serve the champion and the status page until Ctrl-C."""
    from tidemill.web import serve

    session = Session(obj["folder"])
    settings = session.project.settings
    branch = session.branch

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "branch": branch.id, "deployments": list(session.deployments)})
            return
        out.print(f"[bold]{escape(session.project.name)}[/] serves {', '.join(session.deployments)} ({branch.kind} {branch.id})")
        out.print(f"status page  [link={url}]{url}[/link]")
        out.print("Ctrl-C ends it")

    serve(session, str(settings["serve.host"]), settings["serve.port"] if port is None else port, ready=ready)
