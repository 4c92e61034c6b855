"""Routes and pages, assembled: the server of `tidemill up`, the status page, the report of a replay."""

from importlib import import_module
from typing import TYPE_CHECKING

from tidemill.web.report import render_report
from tidemill.web.status import render_status

if TYPE_CHECKING:
    from tidemill.web.app import curl_line as curl_line
    from tidemill.web.app import make_app as make_app
    from tidemill.web.app import serve as serve
    from tidemill.web.tracking import serve_tracking as serve_tracking

_SERVING = {"curl_line": "app", "make_app": "app", "serve": "app", "serve_tracking": "tracking"}

__all__ = ["render_report", "render_status"]


def __getattr__(name: str) -> object:
    """The web framework is loaded only where something is served."""
    if name not in _SERVING:
        raise AttributeError(f"module 'tidemill.web' has no attribute {name!r}")
    return getattr(import_module(f"tidemill.web.{_SERVING[name]}"), name)
