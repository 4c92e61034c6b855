"""What lies between the application and its sockets."""

import asyncio
from typing import Any

import pytest

from tidemill.web.turn import Gathered, Turn


class Recorded:
    """A transport that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.gone = False

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def abort(self) -> None:
        self.told.append("aborted")

    def writelines(self, pieces: list[bytes]) -> None:
        self.told.append(b"".join(pieces))

    def close(self) -> None:
        self.told.append("closed")

    def is_closing(self) -> bool:
        return self.gone or "closed" in self.told


def test_head_and_body_of_an_answer_leave_together_and_before_the_end() -> None:
    async def answer() -> list[Any]:
        transport = Recorded()
        gathered = Gathered(transport, Turn())
        for _ in range(2):
            gathered.write(b"head ")
            gathered.write(b"body")
            await asyncio.sleep(0)
        gathered.write(b"for a client that goes away in this turn")
        transport.gone = True
        await asyncio.sleep(0)
        transport.gone = False
        gathered.write(b"last words")
        assert not gathered.is_closing()
        gathered.close()
        assert gathered.is_closing()
        await asyncio.sleep(0)
        return transport.told

    assert asyncio.run(answer()) == [b"head body", b"head body", b"last words", "closed"]


def test_a_whole_answer_leaves_at_once_where_requests_come_one_by_one_behind_what_was_written_before() -> None:
    soon: list[Any] = []
    turn, transport = Turn(soon.append), Recorded()
    gathered = Gathered(transport, turn)
    gathered.say(b"with others")
    assert transport.told == []
    soon.pop()()
    turn.alone = True
    gathered.say(b"alone")
    assert transport.told == [b"with others", b"alone"]
    gathered.write(b"head ")
    gathered.say(b"behind it")
    assert transport.told == [b"with others", b"alone"]
    soon.pop()()
    transport.gone = True
    gathered.say(b"to nobody")
    soon.clear()
    assert transport.told == [b"with others", b"alone", b"head behind it"]


def test_a_client_to_whom_nothing_can_be_sent_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: Any) -> None:
        raise OSError

    turn, transport = Turn(), Recorded()
    monkeypatch.setattr(transport, "write", broken)
    turn.alone = True
    Gathered(transport, turn).say(b"alone")
    assert transport.told == ["aborted"]
