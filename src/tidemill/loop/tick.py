"""One pass of the loop: answer, observe, decide, act. Everything a tick changes is written in one transaction.

A tick is the same for a replayed day and for a live one; only the clock that gives `now` differs.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NoReturn, assert_never

import numpy as np
from sqlalchemy import Connection

from tidemill import registry, training
from tidemill.core import DAY, HOUR, Approval, Event, Floats, Ints, Refused, Verdict, canonical, duration, row_log_loss, show
from tidemill.data import append_predictions, pack_predictions
from tidemill.evaluation import Evidence, daily_means, judge, p_above_zero
from tidemill.loop.decide import decide, skew_now
from tidemill.loop.declarations import QualityDrop, RetrainPolicy
from tidemill.loop.people import approvals
from tidemill.loop.state import (
    Action,
    Admit,
    Ask,
    Candidate,
    Climb,
    Compare,
    Compared,
    Keep,
    Look,
    Note,
    Observation,
    Promote,
    Refuse,
    Retrain,
    RollBack,
    Served,
    SkewSeen,
    State,
)
from tidemill.loop.world import World
from tidemill.monitoring import Alert, Watched, drift_alert, drift_said, drift_test, quality_alert, quality_of, skew_alert
from tidemill.registry import Version
from tidemill.serving import Route
from tidemill.training import Trained

Effect = Callable[[Connection], None]
LOOKS = (0.25, 0.5, 1.0)  # of the gates' holdout: when rows to come are looked at


@dataclass(frozen=True)
class Judged:
    """A version that the gates judged on held-out rows; `trained` is its twin and, when it passed, itself."""

    served: Served
    trained: tuple[Trained, ...]
    verdict: Verdict
    reference: dict[str, float]
    daily: tuple[float, ...]

    @property
    def cost(self) -> int:
        return sum(one.cost for one in self.trained)


@dataclass(frozen=True)
class Loop:
    """A policy over a world."""

    policy: RetrainPolicy
    world: World
    parts: dict[str, Any] | None = None  # of the live branch, kept with the state that goes with them

    @property
    def deployment(self) -> str:
        return self.world.deployment.name

    @property
    def holdout(self) -> int:
        """How much recent time the gates want as evidence."""
        gates = self.world.deployment.gates
        return max((duration(gate.holdout) for gate in gates if hasattr(gate, "holdout")), default=28 * DAY)

    # ── the first champion ──────────────────────────────────────────────────────────────────────────────────────

    def begin(self, now: int) -> State:
        """Train, judge on the newest rows and promote the first champion; raises Refused when its gates do, and keeps their verdict."""
        judged = self._asked_first() or self._judge_on_holdout(now, None, 1)
        if not judged.verdict.passed:
            self._refuse_first(judged, now)
        served = replace(judged.served, since=now)
        version, people = self._version(served), self.approvals(served)
        self._ask_first(judged, len(people), now)
        state = State(now, served, served, None, None, now, now, judged.reference, 1, 0, len(judged.trained), judged.cost)
        effects: list[Effect] = [
            lambda c: _register(self.world, c, judged.trained[-1], 1, now),
            lambda c: registry.record_verdict(self.world.ledger, c, version, judged.verdict, at=now),
            self._promotion(version, judged.verdict, people, now, "the first champion", _kept(served, judged.reference)),
        ]
        self.commit(None, state, effects)
        return state

    def _asked_first(self) -> Judged | None:
        """The first model that people were asked about, made again from the same rows; None where it would be another one now."""
        asked = [one for one in self.world.ledger.decisions(self.world.branch) if one.kind == Event.APPROVAL_NEEDED][-1:]
        if not asked or not self.policy.approvals:
            return None
        judged = self._judge_on_holdout(asked[0].at, None, 1)
        return judged if judged.served.digest == asked[0].evidence["model"] else None

    def _ask_first(self, judged: Judged, people: int, now: int) -> None:
        """Raise Refused while people are missing for the first champion, which goes live at once; what they are asked about is kept."""
        missing, served = self.policy.approvals - people, judged.served
        if missing <= 0:
            return
        asked: dict[str, object] = {"model": served.digest, "gates": judged.verdict.reason}
        self._say_once(served.until, "loop", Event.APPROVAL_NEEDED, served.label, f"{self.policy.approvals} people must approve", asked)
        hint = f"`tidemill approve {served.label}`, then `tidemill run` again: what was trained is kept"
        raise Refused(f"{served.label} passed its gates and needs {missing} more approvals", where=self.deployment, hint=hint)

    def _refuse_first(self, judged: Judged, now: int) -> NoReturn:
        label, verdict = judged.served.label, judged.verdict
        self._say_once(now, "gates", Event.GATE_REFUSED, label, verdict.reason, {**asdict(verdict), "model": judged.served.digest})
        hint = "give it better features, more data, or gates that it can pass"
        what = f"the first model {label} does not pass its gates: {verdict.reason}"
        raise Refused(what, where=str(self.world.deployment.where), hint=hint)

    def _say_once(self, at: int, who: str, kind: Event, subject: str, why: str, evidence: dict[str, object]) -> None:
        """Write down a decision that stands alone, unless the newest of the branch says the same."""
        ledger, said = self.world.ledger, self.world.ledger.decisions(self.world.branch)[-1:]
        if any((one.kind, one.subject, one.why, canonical(one.evidence)) == (kind, subject, why, canonical(evidence)) for one in said):
            return
        with ledger.records.begin() as connection:
            self._decision(at, who, kind, subject, why, evidence)(connection)

    # ── a tick ──────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, state: State, now: int) -> State:
        """The state after the time from `state.now` to `now`; raises Refused when the clock was set back."""
        if now < state.now:
            raise Refused(f"{show(now)} is before the last pass at {show(state.now)}", hint="correct the clock of this machine")
        self.world.score(state.champion.digest, np.empty(0, dtype=np.int64))  # a lost or damaged model is found here, not by a request
        effects = [self.answer(state, now)]
        after = replace(state, now=now, segments=state.segments + 1)
        for _ in range(2):  # a candidate that is judged at once may act in the same tick
            seen = self.observe(after, now)
            for action in decide(self.policy, after, seen):
                after = self.act(after, action, effects)
            after = replace(after, watched=self._watched(after, now), skew=skew_now(after, seen))
            after = replace(after, compared=seen.skew.found.until) if seen.skew else after
            if after.candidate is None or after.candidate.phase != "judged":
                break
        self.commit(state, after, effects)
        return after

    def answer(self, state: State, now: int) -> Effect:
        """Answer the requests of the tick, and those that came late; the segment is stored here and named in the tick's transaction."""
        candidate = state.candidate
        weight = candidate.weight if candidate and candidate.phase == "canary" else 0.0
        label, digest = (candidate.version.label, candidate.version.digest) if candidate else ("", "")
        route = Route(state.champion.label, label, weight, f"{self.deployment}/{label}")
        rows = np.concatenate([self.world.late, self.world.rows(state.now, now)])
        if not len(rows):
            return lambda connection: None
        answers = self.world.answer(rows, route, state.champion.digest, digest, state.frozen.digest)
        stored = self.world.ledger.blobs.put(pack_predictions(answers))
        return lambda c: append_predictions(c, self.world.branch, self.deployment, state.segments, stored, answers)

    def commit(self, before: State | None, state: State, effects: list[Effect]) -> None:
        """Write what was decided and the state that follows, whole or not at all; raises Busy when another process was faster."""
        with self.world.ledger.records.begin() as connection:
            for effect in effects:
                effect(connection)
            self.world.ledger.save_branch(connection, self.world.branch, before.plain() if before else {}, state.plain())
            if self.parts is not None:
                self.world.ledger.save_parts(connection, self.world.branch, self.parts)

    # ── observe ─────────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, state: State, now: int) -> Observation:
        """What can be known at `now`."""
        verdict, daily, last = self._verdict(state, now)
        approvals = len(self.approvals(state.candidate.version)) if state.candidate else 0
        labels = self.world.new_labels(state.champion.until, now) if state.candidate is None else 0
        if labels and self.policy.judge == "holdout" and not len(self.world.mature(self._unseen(now, state), now)):
            labels = 0  # labels are slow: there is nothing to judge on yet
        windows, skew = tuple(self._windows(state, now)), self._skew(state, now)
        return Observation(now, windows, labels, verdict, daily, last, self._compare(state, now), approvals, skew)

    def approvals(self, version: Served) -> tuple[Approval, ...]:
        """Who agreed that a version may go live: that very model, not another one of its name."""
        return approvals(self.world.ledger, self.world.branch, version.label, version.digest) if self.policy.approvals else ()

    def _promotion(
        self, version: Version, verdict: Verdict, people: tuple[Approval, ...], at: int, why: str, kept: dict[str, Any]
    ) -> Effect:
        ledger, told = self.world.ledger, dict[str, Any](needed=self.policy.approvals, at=at, why=why, kept=kept)
        return lambda c: registry.promote(ledger, c, self.deployment, version, verdict, people, **told)

    def _window(self) -> int:
        return duration(self.policy.monitor.every)

    def _watched(self, state: State, now: int) -> int:
        """The end of the newest window that is whole and mature."""
        end = state.watched
        while self._mature(end + self._window(), now):
            end += self._window()
        return end

    def _mature(self, end: int, now: int) -> bool:
        rows, at = self.world.rows(end - self._window(), end), self.world.examples.at
        if end > now or not len(at) or at[-1] < end - DAY:  # files that end before it may yet tell of it
            return False
        if not len(rows):
            return True
        done = self.world.examples.resolved[rows] <= now
        days = self.world.days[rows]
        return all(done[days == day].mean() >= self.policy.monitor.maturity for day in np.unique(days))

    def _windows(self, state: State, now: int) -> list[Watched]:
        found, end = [], state.watched
        while self._mature(end + self._window(), now):
            found.append(self._watch(state, end, end + self._window(), now))
            end += self._window()
        return found

    def _watch(self, state: State, start: int, end: int, now: int) -> Watched:
        """Look at one window of the champion's answers, as far as it served it and did not learn from it."""
        rows = self.world.rows(max(start, state.champion.since, state.champion.until), end)
        rows = rows[self.world.known(rows, now) & ~np.isnan(self.world.champion[rows])]  # one of before it served may have come too late
        label, served, days = self.world.examples.label[rows], self.world.champion[rows], self.world.days[rows]
        drift, alert = self._drift(state, start, end, now)
        alerts: list[Alert | None] = [alert]
        tested = [trigger.metric for trigger in self.policy.on if isinstance(trigger, QualityDrop)]
        for name in dict.fromkeys([*self.policy.monitor.quality, *tested]):
            by = min((t.by for t in self.policy.on if isinstance(t, QualityDrop) and t.metric == name), default=None)
            if by is not None and name in state.reference:
                alerts.append(quality_alert(name, label, served, days, reference=state.reference[name], by=by, at=now))
        quality = quality_of(self.policy.monitor.quality, label, served)
        judged = {name: state.reference[name] for name in quality if name in state.reference}
        return Watched(start, end, len(rows), quality, judged, drift, tuple(one for one in alerts if one is not None))

    def _drift(self, state: State, start: int, end: int, now: int) -> tuple[str, Alert | None]:
        """What the drift test of a window says, and its alert."""
        test, first = self.policy.monitor.drift, max(start, state.champion.until)
        if test is None:
            return "", None
        if end - first < self._window() - HOUR:
            return "not testable: the champion learnt from a part of it", None
        rows = self.world.rows(first, end)
        rows = rows[self.world.known(rows, now)]  # with a label, as the reference's rows are
        features, days = self.world.aligned(state.champion.digest, rows), self.world.days_since(first, end, rows)
        width = (self._window() + HOUR) // DAY
        profile = self.world.profile(state.champion.digest)
        result = drift_test(profile, features, days, window=width, false_alarm_rate=test.false_alarm_rate)
        return drift_said(result), drift_alert(result, window=width, at=now)

    def _skew(self, state: State, now: int) -> SkewSeen | None:
        """The comparison of the features that were served since the last one, once in a window: an hour of slack, as for a day on which
        clocks go forward."""
        check, since = self.policy.monitor.skew, state.compared or state.champion.since
        if check is None or self.world.skew is None or now - since < self._window() - HOUR:
            return None
        measured = self.world.skew(check, since, now)
        return SkewSeen(measured.found, str(measured.report), skew_alert(measured.found, check, at=now))

    def _verdict(self, state: State, now: int) -> tuple[Verdict | None, tuple[float, ...], bool]:
        """The gates' verdict where a look is due, the daily differences behind it, and whether it is the last look."""
        candidate = state.candidate
        if candidate is None or candidate.phase not in ("judging", "judged"):
            return None, (), False
        if candidate.phase == "judged":
            return candidate.verdict, candidate.daily, True
        if now - candidate.since < LOOKS[candidate.look] * self.holdout - HOUR:
            return None, (), False
        rows = self.world.mature(candidate.since, now)
        evidence = self._pairs(state, rows)
        verdict = judge(self.world.deployment.gates, evidence, candidate.version.label, looks=len(LOOKS))
        return verdict, _daily(evidence), candidate.look == len(LOOKS) - 1

    def _compare(self, state: State, now: int) -> Compared | None:
        candidate = state.candidate
        if candidate is None or candidate.phase != "canary":
            return None
        evidence = self._pairs(state, self.world.mature(candidate.since, now))  # a label that is in early is of a flight that was
        worse = float(np.mean(_worse(evidence))) if len(evidence.y) else 0.0
        return Compared(len(evidence.y), worse, p_above_zero(_daily(evidence), candidate.daily))

    def _pairs(self, state: State, rows: Ints) -> Evidence:
        """The evidence of those rows that both versions scored."""
        candidate, champion = self.world.candidate[rows], self.world.score(state.champion.digest, rows)
        both = ~np.isnan(candidate) & ~np.isnan(champion)
        return self.world.evidence(rows[both], candidate[both], champion[both], 0.5)

    # ── act ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def act(self, state: State, action: Action, effects: list[Effect]) -> State:
        """The state after an action; what it writes is appended to `effects`."""
        match action:
            case Keep(watched):
                kept = {"rows": watched.rows, "quality": watched.quality, "reference": watched.reference, "drift": watched.drift}
                effects.append(self._decision(state.now, "monitor", Event.WATCHED, state.champion.label, watched.why, kept))
                return state
            case Compare(seen):
                found = seen.found
                told = {"report": seen.report, "answers": found.answers, "rows": found.rows, "over": list(found.over)}
                told |= {"differing": {one.name: one.differing for one in found.features if one.differing}}
                told |= {"known_later": found.known_later}
                effects.append(self._decision(state.now, "monitor", Event.FEATURES_COMPARED, state.champion.label, found.why, told))
                return state
            case Note(alert):
                effects.append(self._decision(state.now, "monitor", alert.kind, state.champion.label, alert.why, alert.evidence))
                return replace(state, pending=(*state.pending, alert)[-20:])
            case Retrain(why):
                return self._train(state, why, effects)
            case Look(verdict):
                return self._look(state, verdict, effects)
            case Refuse(verdict):
                return self._refuse(state, verdict, effects)
            case Admit(verdict, daily):
                return self._admit(state, verdict, daily, effects)
            case Ask(missing):
                version, why = self._candidate(state).version, f"{missing} more people must approve"
                asked: dict[str, object] = {"model": version.digest}
                effects.append(self._decision(state.now, "loop", Event.APPROVAL_NEEDED, version.label, why, asked))
                return replace(state, candidate=replace(self._candidate(state), phase="approval"))
            case Climb(weight, why):
                return self._climb(state, weight, why, effects)
            case Promote(why):
                return self._promote(state, why, effects)
            case RollBack(why, compared):
                return self._roll_back(state, why, compared, effects)
            case _:
                assert_never(action)

    def _candidate(self, state: State) -> Candidate:
        assert state.candidate is not None
        return state.candidate

    def _version(self, served: Served) -> Version:
        return Version(self.world.branch, served.model, served.number, served.digest, served.since)

    def _decision(self, at: int, who: str, kind: Event, subject: str, why: str, evidence: dict[str, object]) -> Effect:
        decide = self.world.ledger.decide
        return lambda c: decide(c, self.world.branch, at=at, who=who, kind=kind, subject=subject, why=why, evidence=evidence)

    def _train(self, state: State, why: str, effects: list[Effect]) -> State:
        if self.policy.judge == "holdout":
            return self.candidate_on_holdout(state, why, effects)
        trained = self._fit(state.now)
        digest, number = trained.model.ref.digest, state.numbers + 1
        served = Served(f"{trained.model.ref.name}/{number}", number, digest, state.now, state.now)
        return self._made(state, Candidate(served, "judging", state.now, why), (trained,), effects)

    def candidate_on_holdout(self, state: State, why: str, effects: list[Effect]) -> State:
        """Train a candidate that is judged at once, on the newest rows."""
        judged = self._judge_on_holdout(state.now, state, state.numbers + 1)
        candidate = Candidate(judged.served, "judged", state.now, why, 0, 0.0, judged.verdict, judged.daily, judged.reference)
        return self._made(state, candidate, judged.trained, effects)

    def _made(self, state: State, candidate: Candidate, trained: tuple[Trained, ...], effects: list[Effect]) -> State:
        """The state with a new candidate, and what its training cost."""
        cost, version = sum(one.cost for one in trained), candidate.version
        effects.append(lambda c: _register(self.world, c, trained[-1], version.number, state.now))
        evidence: dict[str, object] = {"row_rounds": cost, "model": version.digest, **_kept(version, candidate.reference)}
        effects.append(self._decision(state.now, "policy", Event.RETRAINED, version.label, candidate.why, evidence))
        self.world.candidate[:] = np.nan
        made = replace(state, numbers=version.number, last_attempt=state.now, candidate=candidate, pending=())
        return replace(made, trainings=state.trainings + len(trained), row_rounds=state.row_rounds + cost)

    def _fit(self, until: int) -> Trained:
        ledger, branch = self.world.ledger, self.world.branch
        chosen = training.training_set(ledger, self.world.examples, until, branch=branch)
        return training.train(ledger, self.world.deployment.model, chosen, branch=branch)

    def _judge_on_holdout(self, now: int, state: State | None, number: int) -> Judged:
        """Judge a twin that knows nothing of the newest rows; if it passes, fit on all rows."""
        start, rival = self._held_out(now, state)
        rows = self.world.mature(start, now)
        if not len(rows):
            raise self.world.nothing_to_judge(start, now)
        twin, champion = self._fit(start), None
        if rival:
            champion = self.world.score(rival, rows)
            rows, champion = rows[~np.isnan(champion)], champion[~np.isnan(champion)]
        scores = self.world.score(twin.model.ref.digest, rows)
        base_rate = float(self.world.examples.label[self.world.examples.known(start)].mean())
        evidence = self.world.evidence(rows, scores, champion, base_rate)
        verdict = judge(self.world.deployment.gates, evidence, f"{twin.model.ref.name}/{number}")
        trained = (twin, self._fit(now)) if verdict.passed else (twin,)
        model = trained[-1].model
        served = Served(f"{model.ref.name}/{number}", number, model.ref.digest, now, now, twin.model.ref.digest, start)
        return Judged(served, trained, verdict, self.world.reference(rows, scores), _daily(evidence))

    def _held_out(self, now: int, state: State | None) -> tuple[int, str]:
        """Since when rows are held out, and which model the twin must beat on them (none for the first).

        Where too little is new (only the definitions changed), twin meets twin: on the rows that the champion's own twin was judged on.
        """
        start = self._unseen(now, state)
        if state is None:
            return start, ""
        new = len(self.world.mature(start, now)) and self.world.new_labels(state.champion.until, now) >= self.policy.min_new_labels
        if state.champion.twin and not new:
            return state.champion.twin_until, state.champion.twin
        return start, state.champion.digest

    def _unseen(self, now: int, state: State | None) -> int:
        """The newest `holdout` up to the newest label; of a younger champion's, the newer half of what it has not seen: it must not be
        judged on its own lessons, and the twin must have learnt something new."""
        newest = self.world.newest_label(now)
        return max(newest - self.holdout, (state.champion.until + newest) // 2 if state else 0)

    def _look(self, state: State, verdict: Verdict, effects: list[Effect]) -> State:
        candidate = self._candidate(state)
        evidence = asdict(verdict)
        effects.append(self._decision(state.now, "gates", Event.GATES_UNDECIDED, candidate.version.label, verdict.reason, evidence))
        return replace(state, candidate=replace(candidate, look=candidate.look + 1))

    def _refuse(self, state: State, verdict: Verdict, effects: list[Effect]) -> State:
        version = self._version(self._candidate(state).version)
        effects.append(partial(self._record, version, verdict, state.now))
        return replace(state, candidate=None)

    def _record(self, version: Version, verdict: Verdict, at: int, connection: Connection) -> None:
        registry.record_verdict(self.world.ledger, connection, version, verdict, at=at)

    def _admit(self, state: State, verdict: Verdict, daily: tuple[float, ...], effects: list[Effect]) -> State:
        candidate = self._candidate(state)
        effects.append(partial(self._record, self._version(candidate.version), verdict, state.now))
        return replace(state, candidate=replace(candidate, verdict=verdict, daily=daily))

    def _climb(self, state: State, weight: float, why: str, effects: list[Effect]) -> State:
        candidate, ledger = self._candidate(state), self.world.ledger
        version, verdict, now = self._version(candidate.version), candidate.verdict, state.now
        assert verdict is not None
        if candidate.phase != "canary":
            effects.append(lambda c: registry.promote(ledger, c, self.deployment, version, verdict, alias="challenger", at=now, why=why))
        effects.append(self._decision(now, "loop", Event.CANARY, version.label, why, {"weight": weight}))
        return replace(state, candidate=replace(candidate, phase="canary", weight=weight, since=now))

    def _promote(self, state: State, why: str, effects: list[Effect]) -> State:
        candidate, now = self._candidate(state), state.now
        verdict, people = candidate.verdict, self.approvals(candidate.version)
        assert verdict is not None
        rows = self.world.mature(candidate.version.until, now)
        reference = candidate.reference or self.world.reference(rows, self.world.score(candidate.version.digest, rows))
        champion = replace(candidate.version, since=now)
        effects.append(self._promotion(self._version(candidate.version), verdict, people, now, why, _kept(champion, reference)))
        weighted = tuple(one for one in state.weighted if one.version.label != champion.label)
        return replace(state, champion=champion, previous=state.champion, candidate=None, reference=reference, weighted=weighted)

    def _roll_back(self, state: State, why: str, compared: Compared, effects: list[Effect]) -> State:
        ledger, now = self.world.ledger, state.now
        version, champion = self._version(self._candidate(state).version), self._version(state.champion)
        evidence = asdict(compared)
        effects.append(lambda c: registry.roll_back(ledger, c, self.deployment, version, champion, at=now, why=why, evidence=evidence))
        return replace(state, candidate=None)


def _kept(served: Served, reference: dict[str, float]) -> dict[str, Any]:
    """What the making of a version and its promotion keep, so that a rollback finds it as it was judged and served."""
    return {"served": asdict(served), "reference": reference}


def _worse(evidence: Evidence) -> Floats:
    """By how much the candidate's log loss is above its rival's, row by row."""
    return row_log_loss(evidence.y, evidence.candidate) - row_log_loss(evidence.y, evidence.rival)


def _daily(evidence: Evidence) -> tuple[float, ...]:
    return daily_means(_worse(evidence), evidence.days)


def _register(world: World, connection: Connection, trained: Trained, number: int, at: int) -> None:
    registry.register(connection, world.branch, trained.model, at=at, number=number)
