"""`tidemill up`: the gateway and the status page in one process."""

from rich.markup import escape
from rich.text import Text

from tidemill.cli.console import link, out, print_json
from tidemill.serving import Deployment
from tidemill.session import Session
from tidemill.web import serve


def up(folder: str, port: int | None, *, as_json: bool) -> None:
    """Serve until Ctrl-C, on the port of the settings where none is given; print the address, or an object with it."""
    session = Session(folder)
    settings = session.project.settings
    branch = session.branch if session.project.all(Deployment) else None  # views alone can be served too

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "branch": branch.id if branch else None, "deployments": list(session.deployments) if branch else []})
            return
        serving = [f"{name} ({history.branch.kind} {history.branch.id})" for name, history in session.serving.items()] if branch else []
        out.print(f"[bold]{escape(session.project.name)}[/] serves {', '.join(serving) or 'features'}")
        out.print(Text.assemble("status page  ", link(url, url)))
        out.print("Ctrl-C ends it")

    serve(session, str(settings["serve.host"]), settings["serve.port"] if port is None else port, ready=ready)
