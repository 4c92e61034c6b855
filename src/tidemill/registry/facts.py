"""What the ledger knows of a version, from its lineage: what `diff` compares."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tidemill.core import Ref, StoreError, TidemillError, UnknownName, show
from tidemill.features import SAVED
from tidemill.ledger import Artifact, Ledger, Node, lineage, nodes
from tidemill.models import golden_of, load_model, signature_of
from tidemill.registry.adopting import adopted
from tidemill.registry.diff import Facts
from tidemill.registry.history import named_version
from tidemill.registry.mlflow_model import environment_of
from tidemill.registry.of_loop import digest_of, looped
from tidemill.registry.registered import location_of
from tidemill.registry.values import ModelVersion
from tidemill.tracking import Run, find_file, get_run, parse_yaml, place_of


def facts_of(ledger: Ledger, text: str) -> Facts:
    """What is known of the version that a text names (`boosted/3`, `boosted@champion`). Raises UnknownName."""
    version = named_version(ledger, text)
    with ledger.records.snapshot() as sql:
        found = looped(sql)
        digest = digest_of(sql, found[version.name], int(version.version)) if version.name in found else ""
    label = f"{version.name}/{version.version}"
    return facts_of_model(ledger, ledger.artifact_of("model", digest), label) if digest else _of_client(ledger, version, label)


def bound_to(ledger: Ledger, ref: Ref | str) -> tuple[str, Artifact]:
    """What tells the features of a model, named by its ref (`model:boosted@1f3c…`) or as a version (`boosted/3`, `boosted@champion`): what
    it is called, and the model of the loop; of a version that a client registered, the saved rows that its run read. A ref may name saved
    rows too. Raises UnknownName."""
    if isinstance(ref, Ref) or ref.startswith("model:"):
        found = ledger.artifact(ref if isinstance(ref, Ref) else Ref.parse(ref))
        if found.ref.kind not in ("model", SAVED):
            raise UnknownName(f"{found.ref} is no model", hint="name a model, or rows that were saved with their features")
        if found.ref.kind == "model" and not any(edge.execution for edge in ledger.parents(found.ref)):
            what = f"{found.ref} was not trained here: nothing is known of its features"
            raise UnknownName(what, hint="name the views that it takes, or the registered version that it was adopted from")
        return str(found.ref), found
    version = named_version(ledger, ref)
    label = f"{version.name}/{version.version}"
    digest = next((tag.value for tag in version.tags or () if tag.key == "tidemill.digest"), "")
    if digest:
        return label, ledger.artifact_of("model", digest)
    read = get_run(ledger, version.run_id).inputs.dataset_inputs or () if version.run_id else ()
    saved = next((one.dataset.digest for one in read if one.dataset and one.dataset.source.startswith(f"{SAVED}:")), "")
    if not saved:
        hint = "name the views that it takes; or ask for its features within its run, with save=…, before it is registered"
        raise UnknownName(f"{label} was registered by a client: nothing is known of its features", hint=hint)
    return label, ledger.artifact_of(SAVED, saved)


def model_ref(ledger: Ledger, version: ModelVersion) -> str:
    """The ref of the model that a version is, to which a feature is bound; of a client's version as what it was adopted, else nothing."""
    digest = next((tag.value for tag in version.tags or () if tag.key == "tidemill.digest"), "")
    return ", ".join(map(str, [ledger.artifact_of("model", digest).ref] if digest else adopted(ledger, version)))


def facts_of_model(ledger: Ledger, artifact: Artifact, label: str) -> Facts:
    """What is known of a model that was trained here."""
    tree = lineage(ledger, artifact.ref)
    signature = signature_of(artifact)
    words = {f"category {name}": ", ".join(values) for name, values in signature.categories.items()}
    plain = {"features": list(signature.features), "output": signature.output, **words}
    found = Facts(label, data=_data(tree), features=_features(tree, signature.features), signature=plain)
    if tree.execution is not None:
        made = tree.execution
        definition = made.inputs.get("definition", {})
        code = {"function": definition.get("code", ""), "tidemill": made.code}
        environment = environment_of(ledger, made.environment)
        run = Run(ledger, made.id)
        found = replace(found, params=run.params, metrics=run.metrics, code=code, environment=environment)
    try:
        return replace(found, predictor=load_model(ledger, artifact), golden=golden_of(ledger, artifact))
    except (StoreError, TidemillError):  # lost bytes: the rest can be told
        return found


def _data(tree: Node) -> dict[str, Any]:
    """The training set with its size and cut-off, and the versions of what it was made from."""
    found: dict[str, Any] = {}
    for node in nodes(tree):
        if node is not tree and node.ref.kind in ("training set", "examples", "dataset", "feature view", "requests", "source", "model"):
            found[f"{node.ref.kind} {node.ref.name}"] = node.ref.version
        if node.ref.kind == "training set":
            found |= {"rows": node.meta.get("rows"), "positives": node.meta.get("positives"), "until": show(int(str(node.meta["until"])))}
    return found


def _features(tree: Node, names: tuple[str, ...]) -> dict[str, Any]:
    """The definition of each feature that the model takes."""
    views: dict[str, Mapping[str, Any]] = {}
    for node in nodes(tree):
        made = node.execution.inputs if node.execution else {}
        if node.ref.kind == "feature view":
            views[node.ref.name] = made.get("definition", {})
        if node.ref.kind == "requests":
            views |= {view["name"]: view for view in made.get("views", [])}
    return {name: _definition(views, name) for name in names}


def _definition(views: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The definition of `VIEW__FEATURE` or `VIEW__FEATURE_WINDOW`: that of the feature, and what its view says of all."""
    view, _, rest = name.partition("__")
    whole = views.get(view, {})
    own = whole.get("features", {})
    feature = next((known for known in sorted(own, key=len, reverse=True) if rest == known or rest.startswith(f"{known}_")), "")
    about = {key: whole[key] for key in ("dataset", "entity", "ttl", "function", "output") if whole.get(key)}
    kept = {key: value for key, value in own.get(feature, {}).items() if key != "type"}
    return {**about, **kept}


def _of_client(ledger: Ledger, version: ModelVersion, label: str) -> Facts:
    """What is known of a version that a client registered: of its run, and of the requirements that lie with its files."""
    environment, signature = _requirements(ledger, version), _signature(ledger, version)
    if not version.run_id:
        return Facts(label, environment=environment, signature=signature)
    try:
        run = get_run(ledger, version.run_id)
    except UnknownName:
        return Facts(label, environment=environment, signature=signature)
    tags = {pair.key: pair.value for pair in run.data.tags or ()}
    code = {name: tags[f"mlflow.source.{name}"] for name in ("name", "git.commit") if f"mlflow.source.{name}" in tags}
    inputs = [one.dataset for one in run.inputs.dataset_inputs or () if one.dataset]
    return Facts(
        label,
        params={pair.key: pair.value for pair in run.data.params or ()},
        metrics={metric.key: metric.value for metric in run.data.metrics or ()},
        data={f"dataset {one.name}": one.digest for one in inputs},
        code=code,
        environment=environment,
        signature=signature,
    )


def _text(ledger: Ledger, version: ModelVersion, name: str) -> bytes:
    """A small file of a version; empty where there is none, or it lies elsewhere."""
    with ledger.records.snapshot() as sql:
        row = location_of(sql, looped(sql), version.name, int(version.version))
    try:
        digest, size = find_file(ledger, f"{place_of(str(row[0]) if row else '')}/{name}")
        return bytes(ledger.blobs.get(digest)) if size < 1 << 20 else b""
    except TidemillError:
        return b""


def _requirements(ledger: Ledger, version: ModelVersion) -> dict[str, str]:
    text = _text(ledger, version, "requirements.txt").decode(errors="replace")
    return dict(re.findall(r"^([\w.\-\[\]]+)==(\S+)", text, re.MULTILINE))


def _signature(ledger: Ledger, version: ModelVersion) -> dict[str, Any]:
    """What the file `MLmodel` says that a model takes and gives, and which flavors it has."""
    text = _text(ledger, version, "MLmodel")
    try:
        plain = parse_yaml(text) if text else {}
    except TidemillError:  # no YAML, or nothing that reads it
        return {}
    told = plain.get("signature")
    found = {key: value for key, value in told.items() if value} if isinstance(told, dict) else {}
    flavors = plain.get("flavors")
    return found | ({"flavors": sorted(map(str, flavors))} if isinstance(flavors, dict) else {})
