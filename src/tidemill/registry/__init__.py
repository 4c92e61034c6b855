"""Model versions, aliases and promotion. A deployment's aliases `champion` and `challenger` move only here, with a passing verdict.

Versions of the loop and those that MLflow's clients register are one registry.
"""

from tidemill.registry.adopting import adopt, adopted
from tidemill.registry.diff import Facts, diff
from tidemill.registry.facts import bound_to, facts_of, facts_of_model, model_ref
from tidemill.registry.files import download_uri, export
from tidemill.registry.history import Move, alias_history, named_version, restore_alias, split_alias, version_before
from tidemill.registry.importing import import_registry
from tidemill.registry.models import get_model, search_registered
from tidemill.registry.of_loop import looped
from tidemill.registry.opened import open_version
from tidemill.registry.registered import search_versions
from tidemill.registry.retention import Action, DeleteExperiment, DeleteModel, DeleteRun, Rule, Stays, apply, plan, sweep, unspoken
from tidemill.registry.tables import tables
from tidemill.registry.values import ModelVersion, RegisteredModel
from tidemill.registry.versions import Version, promote, record_verdict, register, roll_back, version, versions

__all__ = [
    "Action",
    "DeleteExperiment",
    "DeleteModel",
    "DeleteRun",
    "Facts",
    "ModelVersion",
    "Move",
    "RegisteredModel",
    "Rule",
    "Stays",
    "Version",
    "adopt",
    "adopted",
    "alias_history",
    "apply",
    "bound_to",
    "diff",
    "download_uri",
    "export",
    "facts_of",
    "facts_of_model",
    "get_model",
    "import_registry",
    "looped",
    "model_ref",
    "named_version",
    "open_version",
    "plan",
    "promote",
    "record_verdict",
    "register",
    "restore_alias",
    "roll_back",
    "search_registered",
    "search_versions",
    "split_alias",
    "sweep",
    "tables",
    "unspoken",
    "version",
    "version_before",
    "versions",
]
