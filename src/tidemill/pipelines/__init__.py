"""Steps with their needs, run in order and side by side where nothing forbids it. What is cached is not run; each step says why.

A step's `make` gets the answers of the steps that it needs and calls `Ledger.once`; so the pipeline itself knows neither data nor models.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tidemill.core import DefinitionError
from tidemill.ledger import Once

Answers = Mapping[str, Once]


@dataclass(frozen=True)
class Step:
    """A named piece of work over the answers of other steps."""

    name: str
    make: Callable[[Answers], Once]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What became of one step: `done` is False when it starts."""

    name: str
    done: bool
    cached: bool = False
    why: str = ""
    seconds: float = 0.0
    outputs: int = 0


def quiet(report: Report) -> None:
    """A listener that says nothing."""


def check(steps: Sequence[Step]) -> None:
    """Refuse steps that need what is not there, or each other."""
    names = [step.name for step in steps]
    done: set[str] = set()
    for step in steps:
        unknown = [need for need in step.needs if need not in names]
        if unknown:
            raise DefinitionError(f"step {step.name!r} needs {unknown[0]!r}, which no step makes", available=names)
    left = list(steps)
    while left:
        ready = [step for step in left if done.issuperset(step.needs)]
        if not ready:
            raise DefinitionError(f"these steps need each other: {', '.join(step.name for step in left)}")
        done.update(step.name for step in ready)
        left = [step for step in left if step.name not in done]


def run(steps: Sequence[Step], *, listen: Callable[[Report], None] = quiet, workers: int = 2) -> dict[str, Once]:
    """The answers of all steps. The first error stops the rest and is raised as it is."""
    check(steps)
    answers: dict[str, Once] = {}
    left = list(steps)
    running: dict[Future[Once], tuple[Step, float]] = {}
    with ThreadPoolExecutor(workers) as pool:
        while left or running:
            for step in [step for step in left if answers.keys() >= set(step.needs)]:
                left.remove(step)
                listen(Report(step.name, done=False))
                running[pool.submit(step.make, {need: answers[need] for need in step.needs})] = (step, time.monotonic())
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                step, started = running.pop(future)
                once = answers[step.name] = future.result()
                listen(Report(step.name, True, once.cached, once.why, time.monotonic() - started, len(once.outputs)))
    return answers
