"""Golden cases of a version, sent as a client would send them, before anybody else may ask it."""

from dataclasses import replace

import msgspec
import numpy as np

from tidemill.core import Refused, Unavailable
from tidemill.features import Matrix
from tidemill.ledger import Ledger
from tidemill.models import golden_of
from tidemill.serving.answers import inputs_of
from tidemill.serving.endpoint import Endpoint
from tidemill.serving.ladder import Ladder


def rehearse(ledger: Ledger, endpoint: Endpoint) -> None:
    """Have the champion answer its golden cases on the way of requests: as JSON by the names of its features, in the deployment's timeout.
    What the deployment expects, holds out and falls back to is left aside. Raises Refused where an answer is late, or another than when
    the model was made."""
    standing, timeout = endpoint.standing, endpoint.ladder.timeout
    golden = golden_of(ledger, ledger.artifact_of("model", standing.champion[1]))
    alone = replace(
        endpoint,
        standing=replace(standing, previous=None, challenger=None, weighted=()),
        ladder=Ladder(endpoint.name, timeout),
        fallback=(),
        expect=(),
        holdout=None,
        shadows=None,
        cache=None,
    )
    signature, n = endpoint.predictors[standing.champion[1]].signature, len(golden.features)
    if not n:
        return
    matrix = Matrix(signature.features, golden.features, signature.categories, (), np.empty((n, 0), np.uint8), np.zeros(n, dtype=bool))
    rows = msgspec.json.decode(msgspec.json.encode([inputs_of(matrix, i) for i in range(n)]))
    hint = "the champion before it goes on; `tidemill rollback` takes the promotion back"
    try:
        answers = alone.answer(rows, [0] * n)
    except Unavailable:
        what = f"{standing.champion[0]} does not answer its golden cases within {timeout / 1e6:g} s"
        raise Refused(what, where=f"deployment {endpoint.name}", hint=hint) from None
    wrong = golden.wrong(np.array([one.probability for one in answers]))
    if wrong:
        what = f"{standing.champion[0]} answers {wrong} of its {n} golden cases otherwise when they are sent as requests"
        raise Refused(what, where=f"deployment {endpoint.name}", hint=hint)
