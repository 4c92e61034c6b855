"""Routes and pages, assembled: the server of `tidemill up`, the status page, the report of a replay."""

from typing import TYPE_CHECKING

from tidemill.web.report import render_report
from tidemill.web.status import render_status

if TYPE_CHECKING:
    from tidemill.web.app import curl_line as curl_line
    from tidemill.web.app import make_app as make_app
    from tidemill.web.app import serve as serve

__all__ = ["render_report", "render_status"]


def __getattr__(name: str) -> object:
    """The web framework is loaded only where something is served."""
    if name not in ("curl_line", "make_app", "serve"):
        raise AttributeError(f"module 'tidemill.web' has no attribute {name!r}")
    from tidemill.web import app

    return getattr(app, name)
