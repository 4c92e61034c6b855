"""Routes and pages, assembled: the server of `tidemill up`, the status page, the report of a replay."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.web.app import curl_line as curl_line
    from tidemill.web.app import make_app as make_app
    from tidemill.web.app import serve as serve
    from tidemill.web.bare import serve_models as serve_models
    from tidemill.web.logs import logged as logged
    from tidemill.web.place import Place as Place
    from tidemill.web.place import number_of as number_of
    from tidemill.web.report import render_report as render_report
    from tidemill.web.status import render_status as render_status
    from tidemill.web.tracking import serve_tracking as serve_tracking
    from tidemill.web.workers import supervise as supervise

_PLACES = {
    "Place": "place",
    "number_of": "place",
    "curl_line": "app",
    "logged": "logs",
    "make_app": "app",
    "render_report": "report",
    "render_status": "status",
    "serve": "app",
    "serve_models": "bare",
    "serve_tracking": "tracking",
    "supervise": "workers",
}


def __getattr__(name: str) -> object:
    """The web framework is loaded only where something is served."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tidemill.web' has no attribute {name!r}")
    return getattr(import_module(f"tidemill.web.{_PLACES[name]}"), name)
