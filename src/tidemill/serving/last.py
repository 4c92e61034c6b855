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
    >>> last.keep("b", 99, Score(0.9, "v/1", "champion"))  # of a time that has not come
    >>> last.keep("b", 4, Score(0.4, "v/1", "champion"))
    >>> last.find("b", 5, 3).probability, last.find("b", 100, 3).probability
    (0.4, 0.9)
    """

    def __init__(self, keys: int) -> None:
        self.most, self._lock = keys, Lock()
        self._answers = OrderedDict[str, tuple[Score, Score]]()  # of the latest time, and the one that was given last

    def keep(self, key: str, at: int, score: Score) -> None:
        """A model answered a key at a time. A client that may say times may say one that has not come: so one of a later time does not hide
        those that are given after it."""
        last = Score(score.probability, score.version, "last answer", at)
        with self._lock:
            latest, _ = self._answers.get(key, (last, last))
            self._answers[key] = latest if latest.given is not None and latest.given > at else last, last
            self._answers.move_to_end(key)
            while len(self._answers) > self.most:
                self._answers.popitem(last=False)

    def find(self, key: str, at: int, within: int) -> Score | None:
        """The answer of a key, if it is no older than so many microseconds at a time, and not of later."""
        found = self._answers.get(key, ())
        return next((one for one in found if one.given is not None and 0 <= at - one.given <= within), None)
