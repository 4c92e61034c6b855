"""What the log of answers and the checks add to one prediction, in process: each on and off, in turns.

The deployment of `gateway.py`, asked as its server asks it when a body is whole; no socket. Log: a line with features, before the answer
leaves. Checks: a range and no null of each of ten features, and a range of the probability (`tm.Expect`).

    .venv/bin/python benchmarks/logged.py [ROUNDS]
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gateway
from measure import say_where

ROUNDS = int(sys.argv.pop(1)) if len(sys.argv) > 1 else 60
EACH = 100  # requests of a round


def main() -> None:
    """Make the project, then measure."""
    from tidemill.serving.answers import Answer
    from tidemill.serving.declarations import Expect
    from tidemill.serving.expectations import Expectations
    from tidemill.serving.gateway import Gateway
    from tidemill.serving.ids import new_ids
    from tidemill.serving.log import AnswerLog, _encode
    from tidemill.session import Session
    from tidemill.web.app import make_app

    class Off(AnswerLog):
        """What is told is made, and nothing is written."""

        def add(self, answers: Sequence[Answer], now: int, branch: str, **how: object) -> tuple[list[str], list[bytes]]:
            """Ids and answers."""
            ids = new_ids(now, len(answers))
            return ids, [_encode({"id": name, **answer.told()}) for name, answer in zip(ids, answers, strict=True)]

    say_where("onnxruntime", "lmdb", "msgspec")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        gateway.make_project(folder)
        server: Gateway = make_app(Session(folder), "http://127.0.0.1").state.gateway
        endpoint, log = server.endpoints["late"], server.logs["late"]
        signature = endpoint.predictors[endpoint.standing.champion[1]].signature
        features = [Expect(name, low=-1e6, high=1e6, null=name.startswith("recent")) for name in signature.features]
        checks = Expectations([*features, Expect("probability", low=0.0, high=1.0)], signature)
        logs = {False: Off(folder / "off.jsonl", keep=0.0), True: log}
        best: dict[tuple[str, bool, bool], float] = {}
        works = {name: work for name, work in gateway.asked().items() if name != "… a tensor each"}
        for _, (name, (path, bodies)), logged, checked in itertools.product(range(ROUNDS), works.items(), logs, (False, True)):
            server.logs["late"], endpoint._expectations = logs[logged], checks if checked else None
            begun, asked = 0.0, path.encode()
            for i, body in enumerate(bodies[: EACH + 5]):
                if i == 5:
                    begun = time.thread_time()
                while (call := server.quick(b"POST", asked, len(body))) is None or call({b"host": b"127.0.0.1"}, body, True) is None:
                    server.refresh()
            took = (time.thread_time() - begun) / EACH * 1e6
            best[name, logged, checked] = min(best.get((name, logged, checked), took), took)
        print(f"{'CPU of a request, µs':<24} {'neither':>9} {'log':>9} {'checks':>9} {'both':>9} {'both cost':>10}")
        for name in works:
            found = [best[name, *mode] for mode in ((False, False), (True, False), (False, True), (True, True))]
            print(f"{name:<24} {' '.join(f'{one:>9.1f}' for one in found)} {found[3] - found[0]:>10.1f}")
    print(f"\nthe least of {ROUNDS} rounds of {EACH} requests each, in turns")


if __name__ == "__main__":
    main()
