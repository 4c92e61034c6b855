"""Deployments, routes, the gateway and its log. Comes in: requests. Goes out: answers that say which version and rung gave them."""

from typing import TYPE_CHECKING

from tidemill.serving.declarations import Canary, Constant, Deployment, PreviousVersion
from tidemill.serving.endpoint import Answer, Endpoint, Standing, open_endpoint
from tidemill.serving.log import AnswerLog, Logged, Sample, find_answers, read_log, sample_answers
from tidemill.serving.offline import Recomputed, recompute
from tidemill.serving.routing import Route, to_challenger

if TYPE_CHECKING:
    from tidemill.serving.features import FEATURES_PATH as FEATURES_PATH
    from tidemill.serving.features import Features as Features
    from tidemill.serving.gateway import Gateway as Gateway
    from tidemill.serving.gateway import gateway_routes as gateway_routes
    from tidemill.serving.gateway import reply as reply
    from tidemill.serving.gateway import route as route
    from tidemill.serving.gateway import unrouted as unrouted

_WITH_HTTP = ("FEATURES_PATH", "Features", "Gateway", "gateway_routes", "reply", "route", "unrouted")

__all__ = [
    "FEATURES_PATH",
    "Answer",
    "AnswerLog",
    "Canary",
    "Constant",
    "Deployment",
    "Endpoint",
    "Features",
    "Logged",
    "PreviousVersion",
    "Recomputed",
    "Route",
    "Sample",
    "Standing",
    "find_answers",
    "open_endpoint",
    "read_log",
    "recompute",
    "sample_answers",
    "to_challenger",
]


def __getattr__(name: str) -> object:
    """The web framework is loaded only where something is served."""
    if name not in _WITH_HTTP:
        raise AttributeError(f"module 'tidemill.serving' has no attribute {name!r}")
    from tidemill.serving import features, gateway

    return getattr(features if name in ("FEATURES_PATH", "Features") else gateway, name)
