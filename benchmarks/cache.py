"""The cache of answers: what a request costs that is known, and one that is not, beside a server without it. Models of several sizes.

python benchmarks/cache.py
"""

import json
import time
from functools import partial
from timeit import repeat

import numpy as np
from measure import say_where
from onnx import TensorProto, helper, numpy_helper

from tidemill import __version__
from tidemill.models import OnnxModel
from tidemill.serving import CachedModel, Inference, Repository, Served, respond

WIDE, ROWS, PARTS = 30, 2_000, 10
MODELS = {"logistic regression": (), "512 × 512": (512, 512), "2,048 × 2,048": (2048, 2048), "4,096 × 4,096 × 4,096": (4096, 4096, 4096)}


def network(hidden: tuple[int, ...]) -> bytes:
    """A network of layers of such widths over 30 features."""
    random, nodes, constants, name = np.random.default_rng(0), [], [], "features"
    for i, (before, width) in enumerate(zip((WIDE, *hidden), (*hidden, 1), strict=True)):
        weights = random.normal(0, before**-0.5, (before, width)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes += [helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"])]
        nodes += [helper.make_node("Sigmoid" if width == 1 else "Relu", [f"m{i}"], ["probability" if width == 1 else f"h{i}"])]
        name = f"h{i}"
    takes = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, WIDE])
    gives = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(nodes, "network", [takes], [gives], constants)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString())


def request(model: OnnxModel | CachedModel, bodies: list[bytes]) -> float:
    """Microseconds of CPU for a request, from its body to the answer's; every body once."""
    served = Served("m", "1", lambda: model, lambda: 0)
    served.model = served.load()
    call = Inference(Repository([served]), __version__).call("POST", "/v2/models/m/infer")
    asked = iter(bodies)
    each = len(bodies) // PARTS
    return min(repeat(lambda: respond(call, {}, next(asked)), timer=time.process_time, number=each, repeat=PARTS)) / each * 1e6


def main() -> None:
    say_where("onnxruntime")
    rows = np.random.default_rng(1).normal(size=(ROWS, WIDE)).round(3).tolist()
    bodies = [json.dumps({"inputs": [{"name": "features", "shape": [1, WIDE], "datatype": "FP32", "data": row}]}).encode() for row in rows]
    print(f"{'CPU µs of a request':28}{'without':>10}{'not known':>11}{'known':>8}")
    for name, hidden in MODELS.items():
        onnx, many = network(hidden), 200 if hidden[2:] else ROWS
        plain, kept = OnnxModel(onnx), CachedModel(OnnxModel(onnx), 64_000_000)
        measure = partial(request, bodies=bodies[:many])
        print(f"{name:28}{measure(plain):10.1f}{measure(kept):11.1f}{measure(kept):8.1f}", flush=True)


if __name__ == "__main__":
    main()
