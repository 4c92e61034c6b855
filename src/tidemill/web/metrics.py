"""What Prometheus may ask a server: requests by route, answers by rung, versions, and the process itself.

Text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats). Figures are of the server, since
it started: of all its processes.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tidemill.serving import BOUNDS, NOW
from tidemill.web.logs import LOST, note_access

if TYPE_CHECKING:  # a server of bare models does without them
    from tidemill.serving import AnswerCache, Counters, Endpoint, Models

ROUTES = {"predict", "features", "v2", "feedback", "metrics", "status.json", "report", "docs", "openapi.json", "api", "ajax-api", ""}
UNEXPECTED = "unexpected "
CONTENT = "text/plain; version=0.0.4; charset=utf-8"
Row: TypeAlias = "memoryview[float]"
Labels = tuple[tuple[str, str], ...]
Note = Callable[[int | str, float], None]  # status and seconds of an answer
Sample = tuple[str, Labels, float]  # what follows the metric's name, labels, and the value


class Family(NamedTuple):
    """A metric."""

    name: str
    kind: str
    help: str
    samples: Iterable[Sample]


def exposition(families: Iterable[Family]) -> bytes:
    """Families as text; one without a sample is left out.

    >>> print(exposition([Family("up", "gauge", "Whether.", [("", (("of", "a"),), 1.0)])]).decode(), end="")
    # HELP up Whether.
    # TYPE up gauge
    up{of="a"} 1.0
    """
    lines = []
    for family in families:
        told = [f"{family.name}{suffix}{_shown(labels)} {float(value)!r}" for suffix, labels, value in family.samples]
        if told:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}", *told]
    return "".join(f"{line}\n" for line in lines).replace(" inf\n", " +Inf\n").encode()


def _shown(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{pairs}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def histogram(of: Labels, counts: Sequence[float], seconds: float) -> list[Sample]:
    """The samples of one, from how many lay in each of BOUNDS and above them, and their sum."""
    sums = list(accumulate(counts))
    buckets: list[Sample] = [("_bucket", (*of, ("le", repr(bound))), n) for bound, n in zip(BOUNDS, sums, strict=False)]
    return [*buckets, ("_bucket", (*of, ("le", "+Inf")), sums[-1]), ("_sum", of, seconds), ("_count", of, sums[-1])]


class Traffic:
    """How many requests came by each route, how they ended and how long they took. On one event loop: nothing else counts."""

    name, label, by = "tidemill_request", "route", "the first part of their path"

    def __init__(self, counters: "Counters") -> None:
        self._counters, self._going = counters, counters.row(NOW, self.name)
        self._notes = dict[str, Note]()  # by route

    def under_way(self, more: int) -> None:
        """So many more requests are under way, or fewer."""
        self._going[0] += more

    def noted(self, path: str) -> Note:
        """What counts the answers to a path."""
        first = path[1:].partition("/")[0].partition("?")[0]
        return self._noted(f"/{first}" if first in ROUTES else "other")

    def _noted(self, route: str) -> Note:
        if route in self._notes:
            return self._notes[route]
        ended: dict[int | str, tuple[Row, Row]] = {}  # of this process, to be written to

        def note(status: int | str, seconds: float) -> None:
            if status not in ended:
                took = self._counters.row(self.name, route, width=len(BOUNDS) + 2)
                ended[status] = self._counters.row(self.name, route, str(status)), took
            count, took = ended[status]
            count[0] += 1
            took[bisect_left(BOUNDS, seconds)] += 1
            took[-1] += seconds

        return self._notes.setdefault(route, note)

    def families(self) -> Iterator[Family]:
        """As metrics."""
        found = {name[1:]: [*map(sum, zip(*self._counters.rows(*name), strict=True))] for name in sorted(self._counters.names(self.name))}
        ended = [("", ((self.label, name[0]), ("status", name[1])), row[0]) for name, row in found.items() if len(name) > 1]
        yield Family(f"{self.name}s_total", "counter", f"Requests by {self.by} and the status of the answer.", ended)
        took = list[Sample]()
        for (route, *rest), (*counts, seconds) in found.items():
            if rest:
                continue
            took += histogram(((self.label, route),), counts, seconds)
        yield Family(f"{self.name}_seconds", "histogram", "From when a request was whole until its answer was.", took)
        going = sum(max(row[0], 0.0) for row in self._counters.rows(NOW, self.name))  # less than none: of a process that ends
        yield Family(f"{self.name}s_under_way", "gauge", "Requests that are being answered.", [("", (), going)])


class Calls(Traffic):
    """The same over gRPC, by method and the name of the status. Several threads count."""

    name, label, by = "tidemill_grpc_request", "method", "their method over gRPC"

    def __init__(self, counters: "Counters") -> None:
        super().__init__(counters)
        self._lock = Lock()

    def under_way(self, more: int) -> None:
        """So many more requests are under way, or fewer."""
        with self._lock:
            super().under_way(more)

    def called(self, method: str, status: str, seconds: float) -> None:
        """A request was answered, or a message of a stream."""
        with self._lock:
            self._noted(method)(status, seconds)

    def families(self) -> Iterator[Family]:
        """As metrics."""
        with self._lock:
            yield from [*super().families()]


def measured(app: Any, traffic: Traffic) -> Any:
    """An application whose requests are counted."""

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        begun, status = time.perf_counter(), 500
        traffic.under_way(1)

        async def told(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, told)
        finally:
            traffic.under_way(-1)
            traffic.noted(scope["path"])(status, seconds := time.perf_counter() - begun)
            note_access(scope["method"], scope["path"], status, seconds)

    return counted


def of_endpoints(endpoints: Mapping[str, "Endpoint"]) -> Iterator[Family]:
    """Of deployments: answers by rung, what went wrong with rungs, what was not as expected, and which versions stand in them."""
    there = [*endpoints.items()]
    answers, misses, odd = list[Sample](), list[Sample](), list[Sample]()
    for name, one in there:
        of = ("deployment", name)
        for what, rows in [*one.ladder.counts.items()]:
            rung, _, why = what.rpartition(": ")
            if not rung:
                answers.append(("", (of, ("rung", what)), float(rows)))
            elif rung.startswith(UNEXPECTED):
                odd.append(("", (of, ("value", rung.removeprefix(UNEXPECTED)), ("otherwise", why)), float(rows)))
            else:
                misses.append(("", (of, ("rung", rung), ("why", why)), float(rows)))
    yield Family("tidemill_answers_total", "counter", "Rows that were answered, by the rung that gave the answer.", answers)
    yield Family("tidemill_rung_misses_total", "counter", "Rows that a rung did not answer: failed, too late, left out, deadline.", misses)
    times = list[Sample]()
    for name, one in there:
        for rung, (*counts, seconds) in one.ladder.times():
            times += histogram((("deployment", name), ("rung", rung)), counts, seconds)
    yield Family("tidemill_rung_seconds", "histogram", "From when a rung was asked until it answered, failed or was too late.", times)
    yield Family("tidemill_unexpected_total", "counter", "Values that were not as expected, by what was done.", odd)
    out: list[Sample] = [
        ("", (("deployment", name), ("rung", rung)), float(by)) for name, one in there for rung, by in one.ladder.left_out.items()
    ]
    yield Family("tidemill_rung_left_out", "gauge", "Rungs that keep failing and are left out for now: by so many processes.", out)
    roles: list[Sample] = [
        ("", (("deployment", name), ("role", role), ("version", version[0])), 1.0)
        for name, one in there
        for role, version in _standing(one)
        if version
    ]
    yield Family("tidemill_version_info", "gauge", "The versions that stand in a deployment, by their role.", roles)
    weights: list[Sample] = [("", (("deployment", name),), one.standing.weight) for name, one in there if one.standing.challenger]
    yield Family("tidemill_challenger_weight", "gauge", "The share of keys that the challenger answers.", weights)
    parts: list[Sample] = [
        ("", (("deployment", name), ("version", version)), part) for name, one in there for version, part in one.standing.shares.items()
    ]
    yield Family("tidemill_version_share", "gauge", "The share of keys that a version answers.", parts)
    copied: list[Sample] = [
        ("", (("deployment", name), ("what", what)), float(said))
        for name, one in there
        if one.shadow and one.shadows
        for what, said in one.shadows.plain().items()
        if what in ("copied", "dropped", "failed")
    ]
    yield Family("tidemill_shadow_rows_total", "counter", "Rows that were copied to the shadow, dropped, or failed in it.", copied)
    yield from of_caches("deployment", [(name, one.cache) for name, one in there])


def of_caches(kind: str, caches: Iterable[tuple[str, "AnswerCache | None"]]) -> Iterator[Family]:
    """Of what is known of answers, by the name of a deployment or model."""
    there = [(((kind, name),), one.counted()) for name, one in caches if one is not None]
    hits: list[Sample] = [("", of, float(hits)) for of, (hits, _, _) in there]
    yield Family("tidemill_cache_hits_total", "counter", "Answers that no model was asked for.", hits)
    misses: list[Sample] = [("", of, float(misses)) for of, (_, misses, _) in there]
    yield Family("tidemill_cache_misses_total", "counter", "Those that it was asked for.", misses)
    kept: list[Sample] = [("", of, float(held)) for of, (_, _, held) in there]
    yield Family("tidemill_cache_bytes", "gauge", "What is kept of answers.", kept)


def _standing(one: "Endpoint") -> list[tuple[str, tuple[str, str] | None]]:
    standing = one.standing
    roles = [("champion", standing.champion), ("previous", standing.previous), ("challenger", standing.challenger)]
    return [*roles, *(("weighted", version) for version, _ in standing.weighted)]


def of_models(models: "Models") -> Iterator[Family]:
    """Of what is asked through the inference protocol, by model and version."""
    there = [((("model", one.name), ("version", one.version)), one.counts.read()) for one in models]

    def each(name: str, told: str, what: str, per: float = 1.0) -> Family:
        return Family(f"tidemill_inference_{name}_total", "counter", told, [("", labels, counts[what] / per) for labels, counts in there])

    yield each("requests", "Requests of the inference protocol that were answered.", "requests")
    yield each("failures", "Those that were wrong, or that the model could not answer.", "failed")
    yield each("rows", "Rows that were answered.", "rows")
    yield each("run_seconds", "Time that models took.", "run", 1e9)


def of_process(version: str, counters: "Counters", server: int | None = None) -> Iterator[Family]:
    """Of the process, under the names that Prometheus' own clients use; where it is one of several, of them all and of the one (`server`)
    that started them."""
    import psutil

    process = psutil.Process(server)
    cpu, memory = _used(process) if server else (sum(process.cpu_times()[:2]), process.memory_info().rss)
    started = process.create_time()
    yield Family("tidemill_build_info", "gauge", "The version of Tidemill.", [("", (("version", version),), 1.0)])
    yield Family("tidemill_workers", "gauge", "Processes that answer.", [("", (), float(counters.processes))])
    lost = sum(row[0] for row in counters.rows(*LOST))
    yield Family("tidemill_log_lines_dropped_total", "counter", "Lines of the server's log that nobody read fast enough.", [("", (), lost)])
    yield Family("process_cpu_seconds_total", "counter", "Time of the processor, user and system.", [("", (), cpu)])
    yield Family("process_resident_memory_bytes", "gauge", "Resident memory.", [("", (), float(memory))])
    yield Family("process_start_time_seconds", "gauge", "When the process began, since 1970 UTC.", [("", (), started)])


def _used(process: Any) -> tuple[float, int]:
    """Seconds and bytes of a process and of those that it started; the seconds of ended ones are with it. One that ends in between would
    be counted twice, or not at all: then all is read again."""
    from psutil import Error

    while True:
        there = process.children()
        try:
            times, bytes_ = [one.cpu_times()[:2] for one in there], [one.memory_info().rss for one in (process, *there)]
        except Error:
            continue
        own = process.cpu_times()
        if process.children() == there:
            return sum(map(sum, times)) + sum(own[:4]), sum(bytes_)
