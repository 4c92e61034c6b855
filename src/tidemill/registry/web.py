"""The part of MLflow's REST protocol that is about registered models and their versions: requests, and what answers them."""

from typing import Any

import msgspec

from tidemill.core import Call, answer, page
from tidemill.ledger import Ledger
from tidemill.registry import aliases, files, models, registered
from tidemill.tracking import Pair, Tagging

MODELS, VERSIONS = "/api/2.0/mlflow/registered-models", "/api/2.0/mlflow/model-versions"
MODEL, VERSION = "registered_model", "model_version"
Answer = dict[str, Any]


class Name(msgspec.Struct):
    name: str = ""


class Create(Name):
    tags: list[Pair] = []
    description: str = ""
    deployment_job_id: str = ""


class Rename(Name):
    new_name: str = ""


class Update(Name):
    description: str | None = None
    deployment_job_id: str | None = None


class Tag(Tagging, Name):
    """A tag of a model."""

    key: str = ""
    value: str = ""


class Search(msgspec.Struct):
    filter: str = ""
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str = ""


class Latest(Name):
    stages: list[str] = []


class CreateVersion(Create):
    source: str = ""
    run_id: str = ""
    run_link: str = ""
    model_id: str = ""
    user_id: str = ""


class Version(Name):
    version: str = ""


class UpdateVersion(Version):
    description: str = ""


class Stage(Version):
    stage: str = ""
    archive_existing_versions: bool = False


class VersionTag(Tagging, Version):
    """A tag of a version."""

    key: str = ""
    value: str = ""


class Alias(Name):
    alias: str = ""
    version: str = ""


def _create_model(ledger: Ledger, ask: Create) -> Answer:
    return {MODEL: models.create_model(ledger, ask.name, tags=ask.tags, description=ask.description, job=ask.deployment_job_id)}


def _move_stage(ledger: Ledger, ask: Stage) -> Answer:
    return {VERSION: registered.move_stage(ledger, ask.name, ask.version, ask.stage, archive=ask.archive_existing_versions)}


def _create_version(ledger: Ledger, ask: CreateVersion) -> Answer:
    given = {"run_link": ask.run_link, "description": ask.description, "model_id": ask.model_id, "who": ask.user_id}
    return {VERSION: registered.create_version(ledger, ask.name, ask.source, run_id=ask.run_id, tags=ask.tags, **given)}


def _search_models(ledger: Ledger, ask: Search) -> Answer:
    found = models.search_registered(ledger, ask.filter, order_by=ask.order_by, max_results=ask.max_results, page_token=ask.page_token)
    return page("registered_models", *found)


def _search_versions(ledger: Ledger, ask: Search) -> Answer:
    found = registered.search_versions(ledger, ask.filter, order_by=ask.order_by, max_results=ask.max_results, page_token=ask.page_token)
    return page("model_versions", *found)


def _latest(ledger: Ledger, ask: Latest) -> Answer:
    return page("model_versions", registered.latest_versions(ledger, ask.name, ask.stages), None)


_NAME, _BOTH = ("name",), ("name", "version")
CALLS = [
    Call("POST", f"{MODELS}/create", Create, _create_model, _NAME),
    Call("POST", f"{MODELS}/rename", Rename, answer(models.rename_model, "name", "new_name", tell=MODEL), (*_NAME, "new_name")),
    Call("PATCH", f"{MODELS}/update", Update, answer(models.update_model, "name", "description", "deployment_job_id", tell=MODEL), _NAME),
    Call("DELETE", f"{MODELS}/delete", Name, answer(models.delete_model, "name"), _NAME),
    Call("GET", f"{MODELS}/get", Name, answer(models.get_model, "name", tell=MODEL), _NAME, "read"),
    Call("GET", f"{MODELS}/search", Search, _search_models, (), "read", slow=True),
    Call("POST", f"{MODELS}/get-latest-versions", Latest, _latest, _NAME, "read"),
    Call("GET", f"{MODELS}/get-latest-versions", Latest, _latest, _NAME, "read"),
    Call("POST", f"{MODELS}/set-tag", Tag, answer(models.set_model_tag, "name", "pair"), (*_NAME, "key")),
    Call("DELETE", f"{MODELS}/delete-tag", Tag, answer(models.delete_model_tag, "name", "key"), (*_NAME, "key")),
    Call("POST", f"{MODELS}/alias", Alias, answer(aliases.set_alias, "name", "alias", "version"), (*_BOTH, "alias")),
    Call("DELETE", f"{MODELS}/alias", Alias, answer(aliases.delete_alias, "name", "alias"), (*_NAME, "alias")),
    Call("GET", f"{MODELS}/alias", Alias, answer(aliases.version_by_alias, "name", "alias", tell=VERSION), (*_NAME, "alias"), "read"),
    Call("POST", f"{VERSIONS}/create", CreateVersion, _create_version, (*_NAME, "source")),
    Call("PATCH", f"{VERSIONS}/update", UpdateVersion, answer(registered.update_version, *_BOTH, "description", tell=VERSION), _BOTH),
    Call("POST", f"{VERSIONS}/transition-stage", Stage, _move_stage, (*_BOTH, "stage")),
    Call("DELETE", f"{VERSIONS}/delete", Version, answer(registered.delete_version, *_BOTH), _BOTH),
    Call("GET", f"{VERSIONS}/get", Version, answer(registered.get_version, *_BOTH, tell=VERSION), _BOTH, "read"),
    Call("GET", f"{VERSIONS}/search", Search, _search_versions, (), "read", slow=True),
    Call("GET", f"{VERSIONS}/get-download-uri", Version, answer(files.download_uri, *_BOTH, tell="artifact_uri"), _BOTH, "read", slow=True),
    Call("POST", f"{VERSIONS}/set-tag", VersionTag, answer(registered.set_version_tag, *_BOTH, "pair"), (*_BOTH, "key")),
    Call("DELETE", f"{VERSIONS}/delete-tag", VersionTag, answer(registered.delete_version_tag, *_BOTH, "key"), (*_BOTH, "key")),
]
