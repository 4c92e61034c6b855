"""What a name, a value and a batch may be. Pure; the limits are those of MLflow's protocol.

Each check raises DataError with MLflow's words, since its clients show them: `Invalid value V for parameter 'P' supplied: why`.
"""

import json
import math
import posixpath
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from tidemill.core import DataError
from tidemill.tracking.values import Dataset, DatasetInput, Metric, Pair

KEY, PARAM_VALUE, TAG_VALUE = 250, 6_000, 8_000
LIST = 2**20  # characters of a tag that is a list, which cannot be cut
EXPERIMENT_NAME, EXPERIMENT_TAG_VALUE = 500, 20_000
DATASET = {"name": 500, "digest": 64, "source_type": 36, "source": 2**16 - 1, "schema": 2**20 - 1, "profile": 2**24 - 1}
INPUT_TAG_KEY, INPUT_TAG_VALUE = 255, 500
METRICS, PARAMS, TAGS, ALL = 1_000, 100, 100, 1_000
_KEY = re.compile(r"[/\w.\- :]+")  # as MLflow: letters and digits of any script
_RUN, _EXPERIMENT = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}"), re.compile(r"[a-zA-Z0-9][\w\-]{0,63}")
LONG = 2**63


def invalid(value: Any, parameter: str, why: str = "") -> DataError:
    """The error of a value.

    >>> print(invalid(31, "run_id"))
    Invalid value 31 for parameter 'run_id' supplied.
    """
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= 500 else f"{shown[:500]}..."
    return DataError(f"Invalid value {shown} for parameter '{parameter}' supplied" + (f": {why}" if why else "."))


def missing(parameter: str) -> DataError:
    """The error of a parameter that is not there."""
    return DataError(f"Missing value for required parameter '{parameter}'. See the API docs for more information about request parameters.")


def check_key(key: str, parameter: str = "key", *, longest: int = KEY) -> str:
    """The key of a metric, parameter or tag."""
    if not key:
        raise missing(parameter)
    if not _KEY.fullmatch(key):
        allowed = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        raise invalid(key, parameter, allowed)
    if posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/")):
        raise invalid(key, parameter, f"Names may be treated as files in certain cases, and must not resolve to other names: {key!r}")
    return short(key, parameter, longest)


def short(text: str, parameter: str, longest: int) -> str:
    """A text that is no longer than that."""
    if len(text) > longest:
        raise invalid(text, parameter, f"'{parameter}' exceeds the maximum length of {longest} characters")
    return text


def check_param(one: Pair, parameter: str = "") -> tuple[str, str]:
    """A parameter; a value that is too long is cut, and zeros are left out, which not every store holds."""
    return check_key(one.key, f"{parameter}key" if not parameter else f"{parameter}.key"), (one.value or "").replace("\0", "")[:PARAM_VALUE]


def check_tag(one: Pair, parameter: str = "") -> tuple[str, str]:
    """A tag of a run; a value that is too long is cut, and zeros are left out, which not every store holds."""
    return check_key(one.key, "key" if not parameter else f"{parameter}.key"), (one.value or "").replace("\0", "")[:TAG_VALUE]


def check_experiment_tag(one: Pair) -> tuple[str, str]:
    """A tag of an experiment."""
    return check_key(one.key), short(one.value or "", "value", EXPERIMENT_TAG_VALUE)


def check_metric(one: Metric, parameter: str = "") -> tuple[str, float, int, int, int]:
    """(key, value, 1 for not a number, timestamp, step) of one value."""
    dot = f"{parameter}." if parameter else ""
    key = check_key(one.key, f"{dot}key" if dot else "name" if one.key else "key")
    if one.value is None:
        raise missing(f"{dot}value")
    if one.timestamp is None:
        raise missing(f"{dot}timestamp")
    timestamp, step = one.timestamp, one.step or 0
    if timestamp < 0 or timestamp >= LONG:
        raise invalid(
            timestamp, f"{dot}timestamp", f"metric '{key}' (value={one.value}, timestamp={timestamp}): a nonnegative long is needed"
        )
    if not -LONG <= step < LONG:
        raise invalid(step, f"{dot}step", "a long integer is needed")
    value = float(one.value)
    if math.isnan(value):
        return key, 0.0, 1, timestamp, step
    return key, value, 0, timestamp, step


def check_dataset(one: DatasetInput) -> tuple[Dataset, list[Pair]]:
    """A dataset that a run reads, and its tags."""
    found, tags = one.dataset, one.tags or []
    if found is None or not found.name:
        raise DataError("Dataset input must have a dataset associated with it.")
    for parameter, longest in DATASET.items():
        short(getattr(found, parameter) or "", parameter, longest)
    for tag in tags:
        short(tag.key, "key", INPUT_TAG_KEY)
        short(tag.value or "", "value", INPUT_TAG_VALUE)
    return found, tags


def check_batch(metrics: Sequence[Metric], params: Sequence[Pair], tags: Sequence[Pair]) -> None:
    """How much one call may log."""
    for name, found, most in (("metrics", metrics, METRICS), ("params", params, PARAMS), ("tags", tags, TAGS)):
        if len(found) > most:
            raise DataError(f"A batch logging request can contain at most {most} {name}. Got {len(found)} {name}. Please split up {name}")
    total = len(metrics) + len(params) + len(tags)
    if total > ALL:
        raise DataError(f"A batch logging request can contain at most {ALL} metrics, params, and tags in total. Got {total}")
    seen: dict[str, str | None] = {}
    for one in params:
        if one.key in seen:
            raise DataError(
                f"Duplicate parameter keys have been submitted: ['{one.key}']. "
                "Please ensure the request contains only one param value per param key."
            )
        seen[one.key] = one.value


def check_run_id(text: str) -> str:
    """The id of a run."""
    if not _RUN.fullmatch(text):
        raise DataError(f"Invalid run ID: '{text}'")
    return text


def check_model_id(text: str) -> str:
    """The id of a logged model."""
    return short(text, "model_id", KEY)


def check_experiment_id(text: str) -> str:
    """The id of an experiment."""
    if not _EXPERIMENT.fullmatch(text):
        raise DataError(f"Invalid experiment ID: '{text}'")
    return text


def check_experiment_name(name: str) -> str:
    """The name of an experiment."""
    if not name:
        raise missing("name")
    return short(name, "name", EXPERIMENT_NAME)


MOST_EXPERIMENTS = 10_000  # that one search may name: each is a mark in the query


def experiment_numbers(ids: Sequence[str]) -> list[int]:
    """The numbers of experiments, each once; of ids that cannot be there, none."""
    if len(ids) > MOST_EXPERIMENTS:
        raise DataError(f"a search can name at most {MOST_EXPERIMENTS} experiments. Got {len(ids)}", hint="search some after the others")
    return sorted({int(one) for one in ids if one.isdecimal() and len(one) < 19})


def page_size(asked: int | None, default: int, most: int) -> int:
    """How many rows a page has."""
    size = default if asked is None else asked
    if size < 1:
        raise invalid(size, "max_results", "It must be a positive integer")
    if size > most:
        raise invalid(size, "max_results", f"It must be at most {most}")
    return size


_ROOTED = re.compile("/|[A-Za-z]:/|file:")
LONGEST, PART = 1_000, 255  # characters of a path, and bytes of each part of it, as file systems have it


def check_path(path: str) -> str:
    """A path below the root, without a way out, and without parts that are a dot alone; raises DataError."""
    if "/./" in f"/{path}/":
        path = "/".join(part for part in path.split("/") if part != ".")
    plain = path
    for _ in range(3 if "%" in plain else 0):  # a client may have encoded it more than once
        plain = unquote(plain)
    odd = "\0" in plain or "\\" in plain or "/../" in f"/{plain}/" or _ROOTED.match(plain) or "//" in path.rstrip("/")
    long = len(path) > PART // 4 and (len(path) > LONGEST or any(len(part.encode(errors="replace")) > PART for part in path.split("/")))
    if odd or long:
        raise DataError(
            f"Invalid path: {path[:200]!r}", hint="a path relative to the root of the artifacts, such as 1/abc/artifacts/model.onnx"
        )
    return path.rstrip("/")


def clean(text: str) -> str:
    """A text that every store can hold: without zeros and halves of characters.

    >>> clean("a\\0b\\udc80")
    'ab?'
    """
    return text.replace("\0", "").encode(errors="replace").decode()
