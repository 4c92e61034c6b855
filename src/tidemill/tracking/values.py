"""Experiments, runs and what they log, with the names of MLflow's protocol, so that they go over the wire as they are.

Times are milliseconds since 1970. A field that is None is left out.
"""

import msgspec


class Value(msgspec.Struct, omit_defaults=True, gc=False):
    """A value of the protocol."""


class Pair(Value):
    """A parameter or a tag."""

    key: str = ""
    value: str | None = None


class Tagging:
    """A request with a `key` and a `value`."""

    __slots__ = ()
    key: str
    value: str

    @property
    def pair(self) -> Pair:
        """Both, as a parameter or a tag without its owner."""
        return Pair(self.key, self.value)


class Metric(Value):
    """One value of a metric; the newest is that of the greatest (step, timestamp, value)."""

    key: str = ""
    value: float | None = None
    timestamp: int | None = None
    step: int | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    model_id: str | None = None
    run_id: str | None = None


class Experiment(Value):
    """A named group of runs."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    creation_time: int
    last_update_time: int
    tags: list[Pair] | None = None


class RunInfo(Value):
    """What a run is."""

    run_id: str
    run_uuid: str
    run_name: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    artifact_uri: str
    lifecycle_stage: str
    end_time: int | None = None


class RunData(Value):
    """What a run logged: the newest value of each metric, parameters, tags."""

    metrics: list[Metric] | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


class Dataset(Value):
    """Data as a client describes them."""

    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class DatasetInput(Value):
    """A dataset that a run read."""

    dataset: Dataset | None = None
    tags: list[Pair] | None = None


class ModelRef(Value):
    """A logged model that a run read or made (then at a step)."""

    model_id: str = ""
    step: int | None = None


class Inputs(Value):
    """What a run read."""

    dataset_inputs: list[DatasetInput] | None = None
    model_inputs: list[ModelRef] | None = None


class Outputs(Value):
    """What a run made."""

    model_outputs: list[ModelRef] | None = None


class Run(Value):
    """A run, whole."""

    info: RunInfo
    data: RunData
    inputs: Inputs
    outputs: Outputs | None = None


class FileInfo(Value):
    """A file or folder of artifacts."""

    path: str
    is_dir: bool
    file_size: int | None = None
