"""Requests to a model that is kept as its original, in a process of its own, beside the same estimator behind a server written by hand.

A forest of 100 trees of scikit-learn that nobody compiled; 30 columns of numbers, one row a request. The server by hand has the estimator
in its own process, checks nothing, and gathers what waits while a call runs. CPU is that of the server's process and its children.

    .venv/bin/python benchmarks/isolated.py [REQUESTS]
"""

import asyncio
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from measure import compared, heading, say_where

REQUESTS = int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdigit() else 3_000
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


def forest() -> tuple[Any, Any]:
    """A fitted forest, and rows."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    rows, label = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(n_estimators=100, random_state=0).fit(rows, label), rows


def ours(folder: Path) -> None:
    """Serve what was kept, from its process."""
    from tidemill.models import Isolated, MatrixModel, Signature
    from tidemill.models.isolated import Original
    from tidemill.serving import Repository, Served
    from tidemill.web import serve_models

    signature = Signature(tuple(f"x{i}" for i in range(30)), input="X")
    model = MatrixModel(Isolated(Original((folder / "rf.skops").read_bytes(), "skops", {}, "rf", "sklearn"), signature))
    one = Served("rf", "1", lambda: model, lambda: 0, model)
    serve_models(Repository([one]), "127.0.0.1", 0, lambda url, grpc: print(json.dumps({"url": url}), flush=True))


class ByHand(asyncio.Protocol):
    """One connection; what waits is answered together by a thread."""

    waiting: list[tuple["ByHand", list[float]]] = []  # noqa: RUF012 – of all connections
    there = threading.Condition()

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport, self.got = transport, b""

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        self.got += data
        head, found, body = self.got.partition(b"\r\n\r\n")
        if found and len(body) == int(head[head.index(b"content-length: ") + 16 :].partition(b"\r\n")[0]):
            self.got = b""
            with self.there:
                self.waiting.append((self, json.loads(body)["inputs"][0]["data"]))
                self.there.notify()

    def answer(self, value: float) -> None:
        """Answer."""
        body = json.dumps({"outputs": [{"name": "probability", "datatype": "FP64", "shape": [1, 1], "data": [value]}]}).encode()
        self.transport.write(ANSWER % (len(body), body))


async def by_hand() -> None:
    """Serve the estimator from this process."""
    model, _ = forest()
    loop = asyncio.get_running_loop()

    def work() -> None:
        while True:
            with ByHand.there:
                ByHand.there.wait_for(lambda: bool(ByHand.waiting))
                some, ByHand.waiting = ByHand.waiting[:64], ByHand.waiting[64:]
            found = model.predict_proba(np.array([row for _, row in some]))[:, 1].tolist()
            for (one, _), value in zip(some, found, strict=True):
                loop.call_soon_threadsafe(one.answer, value)

    threading.Thread(target=work, daemon=True).start()
    server = await loop.create_server(ByHand, "127.0.0.1", 0)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


def main() -> None:
    """Compare."""
    from serving import measured, request
    from tidemill.models._skops import dumped

    say_where("scikit-learn", "uvicorn", "httptools", "msgspec")
    model, rows = forest()
    requests = [request("rf", rows[i : i + 1], raw=False) for i in range(64)]
    asks = {f"{n} at once": (requests, REQUESTS if n > 1 else REQUESTS // 5, n) for n in (1, 16, 64)}
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "rf.skops").write_bytes(dumped(model))
        bound = measured([sys.executable, __file__, "--by-hand"], asks)
        found = measured([sys.executable, __file__, "--ours", scratch], asks)
    heading("the same estimator and batching by hand, in the server's process")
    for what, figures in found.items():
        for figure, values in figures.items():
            compared(f"{what or 'forest'}, {figure}", values, bound[what][figure], {"requests/s": "1/s", "memory": "MiB"}.get(figure, ""))
    print(f"\n{REQUESTS:,} requests, a fifth of one connection; 3 runs: median (lowest–highest); memory is of the server's own process")


if __name__ == "__main__":
    if "--ours" in sys.argv:
        ours(Path(sys.argv[-1]))
    elif "--by-hand" in sys.argv:
        uvloop.run(by_hand())
    else:
        main()
