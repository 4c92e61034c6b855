"""`tidemill up`: the gateway and the status page in one process."""

import sys
from functools import partial

from rich.markup import escape
from rich.text import Text

from tidemill import __version__, project
from tidemill.cli.console import ending, link, out, print_json
from tidemill.serving import Deployment, traced
from tidemill.web import Place, logged, number_of, supervise


def up(
    folder: str,
    port: int | None,
    grpc_port: int | None = None,
    workers: int | str | None = None,
    *,
    as_json: bool,
    access: bool = False,
) -> None:
    """Serve until Ctrl-C, on the ports of the settings and by as many processes where none are given; print the addresses, or an object
    with them. With `access` each request is a line of the server's log."""
    place, settings = Place.taken(), project.find(folder).settings
    remote = settings["serve.grpc_port"] if grpc_port is None else grpc_port
    host, at = str(settings["serve.host"]), settings["serve.port"] if port is None else port
    lines = partial(logged, as_json=as_json or settings["serve.log_json"], access=access or settings["serve.access_log"])
    many = number_of(settings["serve.workers"] if workers is None else workers)
    if place.alone and many > 1:
        with lines():
            supervise(many, host, at, None if remote == "" else remote, sys.argv[1:])
        return
    from tidemill.session import Session  # much, of which a parent needs nothing
    from tidemill.web import serve

    session = Session(folder)
    branch = session.branch if session.project.all(Deployment) else None  # views alone can be served too

    def ready(url: str, grpc: str) -> None:
        if as_json:
            print_json(
                {
                    "url": url,
                    **({"grpc": grpc} if grpc else {}),
                    "branch": branch.id if branch else None,
                    "deployments": list(session.deployments) if branch else [],
                    "workers": place.of,
                }
            )
            return
        serving = [f"{name} ({history.branch.kind} {history.branch.id})" for name, history in session.serving.items()] if branch else []
        out.print(f"[bold]{escape(session.project.name)}[/] serves {', '.join(serving) or 'features'}")
        out.print(Text.assemble("status page  ", link(url, url)))
        if grpc:
            out.print(f"gRPC         {grpc}")
        out.print(ending(place.of))

    with lines(counters=place.counters), traced(settings["serve.traces"], session.project.name, __version__):
        serve(session, host, at, None if remote == "" else remote, ready=ready, place=place)
