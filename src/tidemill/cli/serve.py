"""`tidemill up`: the gateway and the status page in one process."""

from rich.markup import escape
from rich.text import Text

from tidemill.cli.console import link, out, print_json
from tidemill.serving import Deployment
from tidemill.session import Session
from tidemill.web import logged, serve


def up(folder: str, port: int | None, grpc_port: int | None = None, *, as_json: bool, access: bool = False) -> None:
    """Serve until Ctrl-C, on the ports of the settings where none are given; print the addresses, or an object with them. With `access`
    each request is a line of the server's log."""
    session = Session(folder)
    settings = session.project.settings
    branch = session.branch if session.project.all(Deployment) else None  # views alone can be served too

    def ready(url: str, grpc: str) -> None:
        if as_json:
            print_json(
                {
                    "url": url,
                    **({"grpc": grpc} if grpc else {}),
                    "branch": branch.id if branch else None,
                    "deployments": list(session.deployments) if branch else [],
                }
            )
            return
        serving = [f"{name} ({history.branch.kind} {history.branch.id})" for name, history in session.serving.items()] if branch else []
        out.print(f"[bold]{escape(session.project.name)}[/] serves {', '.join(serving) or 'features'}")
        out.print(Text.assemble("status page  ", link(url, url)))
        if grpc:
            out.print(f"gRPC         {grpc}")
        out.print("Ctrl-C ends it")

    remote = settings["serve.grpc_port"] if grpc_port is None else grpc_port
    with logged(as_json=as_json or settings["serve.log_json"], access=access or settings["serve.access_log"]):
        serve(
            session,
            str(settings["serve.host"]),
            settings["serve.port"] if port is None else port,
            None if remote == "" else remote,
            ready=ready,
        )
