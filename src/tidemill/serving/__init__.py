"""Deployments, their gateway and its log; bare models. Comes in: requests. Goes out: answers that say which version gave them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.serving.answers import Answer as Answer
    from tidemill.serving.asked import When as When
    from tidemill.serving.batch import Batch as Batch
    from tidemill.serving.batch import form_of as form_of
    from tidemill.serving.cache import AnswerCache as AnswerCache
    from tidemill.serving.caller import CALLER as CALLER
    from tidemill.serving.caller import ENDLESS as ENDLESS
    from tidemill.serving.caller import EXPECTED as EXPECTED
    from tidemill.serving.caller import NOBODY as NOBODY
    from tidemill.serving.caller import PARENT as PARENT
    from tidemill.serving.caller import REQUEST as REQUEST
    from tidemill.serving.caller import TIMEOUT as TIMEOUT
    from tidemill.serving.caller import Caller as Caller
    from tidemill.serving.caller import exceeded as exceeded
    from tidemill.serving.cases import COLUMNS as COLUMNS
    from tidemill.serving.cases import Wanted as Wanted
    from tidemill.serving.cases import find_cases as find_cases
    from tidemill.serving.compaction import COMMAND as COMMAND
    from tidemill.serving.compaction import Compacted as Compacted
    from tidemill.serving.compaction import compact as compact
    from tidemill.serving.compaction import is_due as is_due
    from tidemill.serving.counters import BOUNDS as BOUNDS
    from tidemill.serving.counters import NOW as NOW
    from tidemill.serving.counters import SIZE as SIZE
    from tidemill.serving.counters import Counters as Counters
    from tidemill.serving.dataset import answers_at as answers_at
    from tidemill.serving.dataset import deployments_in as deployments_in
    from tidemill.serving.declarations import Batching as Batching
    from tidemill.serving.declarations import Breaker as Breaker
    from tidemill.serving.declarations import Cache as Cache
    from tidemill.serving.declarations import Canary as Canary
    from tidemill.serving.declarations import Constant as Constant
    from tidemill.serving.declarations import Deployment as Deployment
    from tidemill.serving.declarations import Expect as Expect
    from tidemill.serving.declarations import Holdout as Holdout
    from tidemill.serving.declarations import LastAnswer as LastAnswer
    from tidemill.serving.declarations import PredictionLog as PredictionLog
    from tidemill.serving.declarations import PreviousVersion as PreviousVersion
    from tidemill.serving.declarations import Shadow as Shadow
    from tidemill.serving.declarations import SimplerModel as SimplerModel
    from tidemill.serving.endpoint import Endpoint as Endpoint
    from tidemill.serving.endpoint import Standing as Standing
    from tidemill.serving.endpoint import open_endpoint as open_endpoint
    from tidemill.serving.erasing import Told as Told
    from tidemill.serving.erasing import erase_lines as erase_lines
    from tidemill.serving.erasing import lines_of as lines_of
    from tidemill.serving.features import FEATURES_PATH as FEATURES_PATH
    from tidemill.serving.features import Features as Features
    from tidemill.serving.feedback import FeedbackLog as FeedbackLog
    from tidemill.serving.feedback import feedback_of as feedback_of
    from tidemill.serving.feedback import last_feedback as last_feedback
    from tidemill.serving.feedback import read_feedback as read_feedback
    from tidemill.serving.feedback import said_of as said_of
    from tidemill.serving.gateway import Gateway as Gateway
    from tidemill.serving.gateway import gateway_operations as gateway_operations
    from tidemill.serving.gateway import gateway_routes as gateway_routes
    from tidemill.serving.gateway import reply as reply
    from tidemill.serving.gateway import route as route
    from tidemill.serving.gateway import unrouted as unrouted
    from tidemill.serving.ids import asked_of as asked_of
    from tidemill.serving.ids import whole_of as whole_of
    from tidemill.serving.inference import FAILED as FAILED
    from tidemill.serving.inference import MOST as MOST
    from tidemill.serving.inference import Call as Call
    from tidemill.serving.inference import Headers as Headers
    from tidemill.serving.inference import Inference as Inference
    from tidemill.serving.inference import QuickCall as QuickCall
    from tidemill.serving.inference import Reply as Reply
    from tidemill.serving.inference import finished as finished
    from tidemill.serving.inference import refused as refused
    from tidemill.serving.inference import respond as respond
    from tidemill.serving.inference_log import InferenceLog as InferenceLog
    from tidemill.serving.kept import keep_until as keep_until
    from tidemill.serving.ladder import Ladder as Ladder
    from tidemill.serving.lines import Labelled as Labelled
    from tidemill.serving.log import AnswerLog as AnswerLog
    from tidemill.serving.log import Logged as Logged
    from tidemill.serving.log import Sample as Sample
    from tidemill.serving.log import find_answers as find_answers
    from tidemill.serving.log import read_log as read_log
    from tidemill.serving.log import sample_answers as sample_answers
    from tidemill.serving.offline import Recomputed as Recomputed
    from tidemill.serving.offline import recompute as recompute
    from tidemill.serving.offline import score_again as score_again
    from tidemill.serving.oip import LARGE as LARGE
    from tidemill.serving.operations import SCHEMAS as SCHEMAS
    from tidemill.serving.operations import Example as Example
    from tidemill.serving.operations import Operation as Operation
    from tidemill.serving.operations import of_protocol as of_protocol
    from tidemill.serving.refusals import CLIENT_GONE as CLIENT_GONE
    from tidemill.serving.refusals import status_of as status_of
    from tidemill.serving.refusals import too_large as too_large
    from tidemill.serving.rehearsal import rehearse as rehearse
    from tidemill.serving.repository import Begun as Begun
    from tidemill.serving.repository import CachedModel as CachedModel
    from tidemill.serving.repository import Counts as Counts
    from tidemill.serving.repository import Models as Models
    from tidemill.serving.repository import Repository as Repository
    from tidemill.serving.repository import Served as Served
    from tidemill.serving.repository import Tensors as Tensors
    from tidemill.serving.routing import Route as Route
    from tidemill.serving.routing import shares as shares
    from tidemill.serving.routing import to_challenger as to_challenger
    from tidemill.serving.rpc import REQUIRES as REQUIRES
    from tidemill.serving.rpc import Procedures as Procedures
    from tidemill.serving.scores import Tally as Tally
    from tidemill.serving.scores import write_scores as write_scores
    from tidemill.serving.shadow import Shadows as Shadows
    from tidemill.serving.spans import traced as traced
    from tidemill.serving.spans import tracer as tracer
    from tidemill.serving.tables import PredictionTable as PredictionTable
    from tidemill.serving.tables import prediction_table as prediction_table
    from tidemill.serving.threads import beside as beside
    from tidemill.serving.together import Shelf as Shelf
    from tidemill.serving.together import Together as Together
    from tidemill.serving.withheld import Withheld as Withheld
    from tidemill.serving.withheld import secret_of as secret_of
    from tidemill.serving.withheld import withheld_by as withheld_by

_PLACES = {
    "beside": "threads",
    "BOUNDS": "counters",
    "NOW": "counters",
    "LARGE": "oip",
    "traced": "spans",
    "tracer": "spans",
    "CALLER": "caller",
    "ENDLESS": "caller",
    "EXPECTED": "caller",
    "NOBODY": "caller",
    "PARENT": "caller",
    "REQUEST": "caller",
    "TIMEOUT": "caller",
    "Caller": "caller",
    "exceeded": "caller",
    "InferenceLog": "inference_log",
    "Ladder": "ladder",
    "Canary": "declarations",
    "Shadows": "shadow",
    "Shadow": "declarations",
    "Holdout": "declarations",
    "SimplerModel": "declarations",
    "LastAnswer": "declarations",
    "Expect": "declarations",
    "AnswerCache": "cache",
    "Batching": "declarations",
    "Breaker": "declarations",
    "Cache": "declarations",
    "CachedModel": "repository",
    "Constant": "declarations",
    "Deployment": "declarations",
    "PredictionLog": "declarations",
    "PreviousVersion": "declarations",
    "Answer": "answers",
    "Batch": "batch",
    "form_of": "batch",
    "Tally": "scores",
    "When": "asked",
    "keep_until": "kept",
    "write_scores": "scores",
    "Endpoint": "endpoint",
    "Standing": "endpoint",
    "open_endpoint": "endpoint",
    "FEATURES_PATH": "features",
    "Features": "features",
    "Told": "erasing",
    "erase_lines": "erasing",
    "lines_of": "erasing",
    "secret_of": "withheld",
    "FeedbackLog": "feedback",
    "Labelled": "lines",
    "COMMAND": "compaction",
    "Compacted": "compaction",
    "compact": "compaction",
    "is_due": "compaction",
    "answers_at": "dataset",
    "deployments_in": "dataset",
    "feedback_of": "feedback",
    "last_feedback": "feedback",
    "read_feedback": "feedback",
    "said_of": "feedback",
    "Gateway": "gateway",
    "gateway_operations": "gateway",
    "gateway_routes": "gateway",
    "reply": "gateway",
    "route": "gateway",
    "unrouted": "gateway",
    "asked_of": "ids",
    "whole_of": "ids",
    "MOST": "inference",
    "Call": "inference",
    "Headers": "inference",
    "Inference": "inference",
    "Reply": "inference",
    "refused": "inference",
    "respond": "inference",
    "Begun": "repository",
    "QuickCall": "inference",
    "FAILED": "inference",
    "finished": "inference",
    "AnswerLog": "log",
    "Logged": "log",
    "Sample": "log",
    "find_answers": "log",
    "read_log": "log",
    "sample_answers": "log",
    "Recomputed": "offline",
    "recompute": "offline",
    "score_again": "offline",
    "COLUMNS": "cases",
    "Wanted": "cases",
    "find_cases": "cases",
    "CLIENT_GONE": "refusals",
    "status_of": "refusals",
    "SCHEMAS": "operations",
    "Example": "operations",
    "Operation": "operations",
    "of_protocol": "operations",
    "too_large": "refusals",
    "rehearse": "rehearsal",
    "SIZE": "counters",
    "Counters": "counters",
    "Counts": "repository",
    "Models": "repository",
    "Repository": "repository",
    "Served": "repository",
    "Tensors": "repository",
    "Route": "routing",
    "shares": "routing",
    "to_challenger": "routing",
    "REQUIRES": "rpc",
    "Procedures": "rpc",
    "Shelf": "together",
    "Together": "together",
    "PredictionTable": "tables",
    "prediction_table": "tables",
    "Withheld": "withheld",
    "withheld_by": "withheld",
}


def __getattr__(name: str) -> object:
    """Each on first use: who serves a bare model needs no feature store, and who declares a deployment no web framework."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tidemill.serving' has no attribute {name!r}")
    return getattr(import_module(f"tidemill.serving.{_PLACES[name]}"), name)
