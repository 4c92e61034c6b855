"""What a session tells of the answers that its gateway gave, and what it takes from people about them."""

from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from tidemill import features, project, serving
from tidemill.core import UnknownName, duration, instant, show
from tidemill.ledger import Ledger
from tidemill.serving import Deployment, FeedbackLog, PredictionTable
from tidemill.session.trace import find_line, traced

Time = str | date | datetime


class Answered:
    """The part of a session that is about answers."""

    project: project.Project

    if TYPE_CHECKING:

        @property
        def ledger(self) -> Ledger: ...  # the session opens it

    def feedback(self, deployment: str, rows: Any) -> dict[str, Any]:
        """Say of answers what became of them: rows with the `id` of each, its `label` (0 or 1), a `comment`, or both; a dict, a list of
        such, a dict of lists, or a frame, whose other columns are not looked at. It survives the end of the process when this returns. A
        later label of the same answer counts in place of the one before.

        Returns {"deployment", "added", "skipped", "labelled_at"}; a row with neither is skipped. Raises UnknownName for an answer that
        there is not, DataError for a wrong row, and then none is added, and StoreError."""
        said, now = serving.said_of(features.whole_rows(rows, ("id", "label", "comment"))), project.now()
        with closing(FeedbackLog(self._answers(deployment))) as log:
            added = log.add(said, now, by_hand=True)
        return {"deployment": deployment, "added": added, "skipped": len(said) - added, "labelled_at": show(now)}

    def feedback_rows(self, deployment: str) -> list[dict[str, Any]]:
        """What was said of answers, one row for each that has a label or a comment, in the order of their first: `id`, `key`,
        `predicted_at`, `version`, `rung`, `probability`, `label`, `comment`, `labelled_at` and `branch`; times are texts in UTC. Raises
        UnknownName."""
        return [asdict(one) for one in serving.last_feedback(self._answers(deployment)).values()]

    def predictions(
        self,
        deployment: str,
        *,
        unsure: float | None = None,
        wrong: bool = False,
        out_of_range: bool = False,
        rung: str = "",
        since: Time | None = None,
        threshold: float = 0.5,
    ) -> list[dict[str, Any]]:
        """Answers of the log, the hardest first: those within `unsure` of the threshold, those that a label says otherwise of (`wrong`),
        those where something was not as expected (`out_of_range`); any of what is asked for, all where nothing is. With `why`, `label`,
        `comment`, and the features and sent columns that are kept. Raises UnknownName."""
        wanted = serving.Wanted(unsure, wrong, out_of_range, rung, threshold)
        begin = 0 if since is None else instant(since, self.project.timezone)
        return serving.find_cases(self._answers(deployment), wanted, begin)

    def prediction_table(self, deployment: str, *, since: Time | None = None, until: Time | None = None) -> PredictionTable:
        """The answers of a deployment that were asked in [since, until), with a column for each feature that was kept, and what people said
        of each (`label`, `comment`, `labelled_at`): an Arrow stream, for `polars.DataFrame(…)` and all that speaks Arrow. Raises
        UnknownName and StoreError."""
        zone, path = self.project.timezone, self._answers(deployment)
        begin, end = (None if one is None else instant(one, zone) for one in (since, until))
        return serving.prediction_table(path, *(begin or 0, *([] if end is None else [end])))

    def compact(self, deployment: str = "", *, wait: float = 0.0, listen: Callable[[int], object] = int) -> list[dict[str, Any]]:
        """Move the logs of answers and of feedback, of one deployment or of all, into their tables (Delta Lake), and delete days that are
        older than `serve.log_keep`. Servers go on meanwhile; `listen` is told how many lines were moved.

        Returns what was moved, by log. Raises UnknownName, Busy while another process does so (after `wait` seconds), StoreError and
        Damaged; whatever ends it, no line is lost or twice there."""
        folder = log_of(self.project, "any").parent
        known = serving.deployments_in(folder)
        if deployment and deployment not in known:
            raise UnknownName(f"there is no log of {deployment!r}", where=str(folder), available=known)
        keep = str(self.project.settings["serve.log_keep"])
        since = project.now() - duration(keep) if keep else 0
        found = serving.compact(folder, [deployment] if deployment else [], keep_since=since, wait=wait, listen=listen)
        return [one.plain() for one in found]

    def trace(self, prediction: str) -> dict[str, Any]:
        """One answer by its id, step by step: request, features and what they were read from, what the model saw, score, rung, feedback.
        Raises DataError for what is no id, UnknownName."""
        path, line = find_line(log_of(self.project, "any").parent, prediction)
        declared = next((one for one in self.project.all(Deployment) if one.name == path.stem), None)
        return traced(path, line, declared, self.ledger)

    def _answers(self, deployment: str) -> Path:
        """The log of answers of a declared deployment."""
        return log_of(self.project, self.project.get(Deployment, deployment).name)


def log_of(declared: project.Project, deployment: str) -> Path:
    """The file to which the gateway appends what it answers for a deployment."""
    return declared.state / "log" / f"{deployment}.jsonl"
