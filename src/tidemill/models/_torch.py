"""PyTorch → ONNX by its own exporter, `torch.onnx.export(dynamo=True)`: it refuses what depends on values, where the older one, which
traces, keeps the branch that it saw. What a network's numbers mean is put behind it, and its answers leave in double precision.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
import torch

from tidemill.core import Array, Floats, MissingExtra, NoExactForm
from tidemill.models.graph import Answer, Columns, Graph
from tidemill.models.network import Network
from tidemill.models.parity import SINGLE, TOLERANCE

OPSET = 21
EXAMPLE = 3  # rows: neither one nor two are taken for any
CONTROL = "let values choose by torch.where, not by `if`, and sizes by features.shape[0]"


class _Asked(torch.nn.Module):  # type: ignore[misc]  # PyTorch is not there where types are checked
    """A network as it is asked: features (n, f) of doubles in, scores (n, k) of doubles out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module, self.gives, self.dtype = network.module, network.gives, _dtype(network)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scores as what they are named."""
        given = self.module(features.to(self.dtype))
        given = given.unsqueeze(1) if given.dim() == 1 else given
        if self.gives == "logits":
            given = torch.sigmoid(given) if given.shape[1] == 1 else torch.softmax(given, 1)
        if self.gives != "prediction" and given.shape[1] == 2:
            given = given[:, 1:]
        return given.to(torch.float64)


def _dtype(network: Network) -> torch.dtype:
    """The type of its weights."""
    return next((one.dtype for one in network.module.parameters() if one.is_floating_point()), torch.float32)


def score(network: Network, features: Any) -> Floats:
    """What PyTorch says to rows (n, f): scores (n, k), of two classes the probability of the second."""
    with torch.no_grad():
        given = _Asked(network).eval()(torch.from_numpy(np.array(features, dtype=np.float64)))
    return np.asarray(given.numpy())


def classes(network: Network) -> tuple[Any, ...]:
    """The names of its classes, where they have some."""
    return tuple(network.classes)


def labels(network: Network, scores: Floats) -> Array | None:
    """The class (n,) that scores choose; None of a prediction. A row without a number has the first."""
    if network.gives == "prediction":
        return None
    found = np.where(np.isnan(scores), -np.inf, scores)
    places = (found[:, 0] > 0.5).astype(np.int64) if found.shape[1] == 1 else found.argmax(1)
    return np.asarray(network.classes)[places] if network.classes else places


def rounds(network: Network) -> int:
    """How often training went over the data."""
    return network.rounds


def native(network: Network) -> bytes:
    """Its weights in the safetensors format: names, types and bytes, and nothing that runs."""
    head, parts, start = dict[str, Any](), list[bytes](), 0
    for name, tensor in sorted(network.module.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        raw = bytes(data.reshape(-1).view(torch.uint8).numpy().tobytes()) if data.numel() else b""
        kind = _SAFE[data.dtype]
        head[name] = {"dtype": kind, "shape": list(data.shape), "data_offsets": [start, start + len(raw)]}
        start += len(raw)
        parts.append(raw)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))


_SAFE = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL", torch.uint8: "U8"}
_SAFE |= {torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64"}


def build(graph: Graph, network: Network, given: list[Columns]) -> Answer:
    """Nodes of a network. Raises NoExactForm for one that is not ready, that takes texts, or that PyTorch cannot export."""
    _check(network)
    if any(one.text for one in given):
        raise NoExactForm("a network takes numbers, and some columns are texts", hint="give their codes, or one column for each word")
    columns = graph.joined(given)
    exported = _exported(network, columns.width)
    scores, width = _taken_over(graph, exported, columns.tensor)
    within = TOLERANCE if _dtype(network) == torch.float64 else SINGLE
    if network.gives == "prediction":
        return Answer("prediction", scores, within=within, numbers=width)
    names = tuple(network.classes) or tuple(range(max(width, 2)))
    if len(names) != max(width, 2):
        raise NoExactForm(f"the network gives {width} numbers for {len(names)} classes", hint="name as many classes as it tells apart")
    return Answer("probability" if width == 1 else "probabilities", scores, names, partial(_place, graph, scores, width), within)


def _place(graph: Graph, scores: str, width: int) -> str:
    if width == 1:
        return graph.above("Greater", scores, graph.constant([0.5]))
    return graph.largest(graph.op("Where", graph.op("IsNaN", scores), graph.constant(-np.inf), scores))


def _check(network: Network) -> None:
    """Raise NoExactForm for a network that is trained still, or whose weights lie elsewhere."""
    learning = next((name or "itself" for name, one in network.module.named_modules() if one.training), None)
    if learning is not None:
        what = f"the network is in training mode ({learning}): dropout and batch normalisation answer otherwise then"
        raise NoExactForm(what, hint="call module.eval() before it is given")
    away = next((one.device for one in network.module.parameters() if one.device.type != "cpu"), None)
    if away is not None:
        raise NoExactForm(f"the weights of the network lie on {away}", hint="call module.cpu() before it is given")


def _exported(network: Network, width: int) -> Any:
    """What PyTorch makes of it, as a message of ONNX; raises NoExactForm with its reason."""
    example = torch.zeros((EXAMPLE, width), dtype=torch.float64)
    try:
        with _quiet(), torch.no_grad():
            made = torch.onnx.export(
                _Asked(network).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("rows")},),
                verbose=False,
            )
        assert made is not None
        from onnx import inliner

        return inliner.inline_local_functions(made.model_proto)
    except ImportError as error:
        raise MissingExtra(str(error), hint="pip install 'tidemill[torch]'") from error
    except Exception as error:  # it raises every kind
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__
        said = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines() or [""]
        raise NoExactForm(f"PyTorch cannot export the network: {type(error).__name__}: {said[0]:.300}", hint=CONTROL) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch says of packages that are not there, and of its steps."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch.export")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


def _taken_over(graph: Graph, exported: Any, tensor: str) -> tuple[str, int]:
    """Append nodes and weights of a message, which take `tensor`; the name of what they give, and its width. Raises NoExactForm where that
    is no matrix."""
    from onnx import compose, helper

    made = compose.add_prefix(exported, "torch/").graph
    (takes,), (gives,) = made.input, made.output
    graph.nodes += [helper.make_node("Identity", [tensor], [takes.name]), *made.node]
    graph.constants += made.initializer
    graph.taken |= {name for node in graph.nodes for name in node.output} | {one.name for one in made.initializer}
    sizes = [one.dim_value for one in gives.type.tensor_type.shape.dim]
    if len(sizes) != 2 or not sizes[1]:
        raise NoExactForm(f"the network gives a tensor of {len(sizes)} dimensions", hint="give one number for each row, or several")
    return gives.name, sizes[1]
