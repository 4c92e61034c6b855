"""The last answer to each key, for when no model can give another."""

from collections import OrderedDict
from threading import Lock

from tidemill.serving.ladder import Score


class LastAnswers:
    """The newest answers of models by key, of so many keys; who was answered longest ago is forgotten first.

    >>> last = LastAnswers(2)
    >>> for at, key in enumerate(["a", "b", "c", "b"]):
    ...     last.keep(key, at, Score(at / 10, "v/1", "champion"))
    >>> [last.find(key, 5, 3) is not None for key in ("a", "b", "c")]
    [False, True, True]
    >>> last.find("b", 5, 3)
    Score(probability=0.3, version='v/1', rung='last answer', given=3, cached=False)
    >>> last.find("b", 7, 3), last.find("b", 2, 3)
    (None, None)
    """

    def __init__(self, keys: int) -> None:
        self.most, self._answers, self._lock = keys, OrderedDict[str, Score](), Lock()

    def keep(self, key: str, at: int, score: Score) -> None:
        """A model answered a key at a time; an answer of before the one that is known does not count."""
        with self._lock:
            known = self._answers.get(key)
            if known is not None and known.given is not None and known.given > at:
                return
            self._answers[key] = Score(score.probability, score.version, "last answer", at)
            self._answers.move_to_end(key)
            while len(self._answers) > self.most:
                self._answers.popitem(last=False)

    def find(self, key: str, at: int, within: int) -> Score | None:
        """The answer of a key, if it is no older than so many microseconds at a time, and not of later."""
        found = self._answers.get(key)
        return found if found is not None and found.given is not None and 0 <= at - found.given <= within else None
