"""Deployments, routes, the gateway and batch scoring. Comes in: requests. Goes out: answers that say which version and rung gave them."""

from tidemill.serving.declarations import Canary, Constant, Deployment, PreviousVersion
from tidemill.serving.routing import Route, to_challenger

__all__ = ["Canary", "Constant", "Deployment", "PreviousVersion", "Route", "to_challenger"]
