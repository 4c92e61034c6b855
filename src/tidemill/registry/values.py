"""Registered models and their versions as MLflow's protocol names them, and what a name, a tag and an alias may be."""

import re

from tidemill.core import DataError
from tidemill.tracking import Pair, Value

STAGES = ("None", "Staging", "Production", "Archived")
KEY, TAG_VALUE, ALIAS = 250, 100_000, 255
SOURCE = 4_096  # characters of where a version's files lie
PROMPT = "mlflow.prompt.is_prompt"


class Alias(Value):
    """A name for one version."""

    alias: str
    version: str


class ModelVersion(Value):
    """One version of a registered model."""

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str
    current_stage: str
    description: str | None = None
    source: str | None = None
    run_id: str | None = None
    status: str | None = None
    status_message: str | None = None
    run_link: str | None = None
    model_id: str | None = None
    tags: list[Pair] | None = None
    aliases: list[str] | None = None


class RegisteredModel(Value):
    """A registered model, with the newest version of each stage."""

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    deployment_job_id: str | None = None
    latest_versions: list[ModelVersion] | None = None
    tags: list[Pair] | None = None
    aliases: list[Alias] | None = None


def check_name(name: str) -> str:
    """The name of a model; raises DataError."""
    if not name:
        raise DataError("Registered model name cannot be empty.")
    if re.search(r"[/:\x00-\x1f\x7f]", name) or len(name) > 256:
        raise DataError(
            f"Invalid name: '{name[:300]}'. Registered model name must be non-empty, without / or :, of at most 256 characters."
        )
    return name


def check_alias(alias: str) -> str:
    """The name of an alias; raises DataError."""
    if not re.fullmatch(r"[\w\-]{1,255}", alias):
        raise DataError(
            f"Invalid alias name: '{alias[:300]}'. Names may only contain alphanumerics, underscores (_), and dashes (-), at most {ALIAS}."
        )
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        reason = (
            "'latest' alias name (case insensitive) is reserved."
            if alias.lower() == "latest"
            else f"Version alias name '{alias}' is reserved."
        )
        raise DataError(reason)
    return alias


def check_tag(one: Pair) -> tuple[str, str]:
    """A tag; raises DataError."""
    value = one.value or ""
    if one.key == "mlflow.prompt.text" and len(value) > TAG_VALUE:
        raise DataError(f"Prompt text exceeds max length of {TAG_VALUE} characters.")
    if not one.key or len(one.key) > KEY or len(value) > TAG_VALUE:
        raise DataError(f"Invalid tag '{one.key[:300]}': 'key' is needed, at most {KEY} characters long, and 'value' at most {TAG_VALUE}")
    return one.key, value


def number_of(version: str) -> int:
    """The number of a version; raises DataError."""
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise DataError(f"Parameter 'version' must be an integer, got '{version[:100]}'.")
    return int(version)


def stage_of(text: str) -> str:
    """A stage as it is written; raises DataError."""
    found = next((stage for stage in STAGES if stage.lower() == text.lower()), None)
    if found is None:
        raise DataError(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")
    return found
