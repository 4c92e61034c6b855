"""Files in parts: any order, each once or again, whole or not there."""

import random

import pytest

from tidemill import tracking
from tidemill.core import DataError, UnknownName
from tidemill.ledger import Ledger
from tidemill.tracking import abort_upload, begin_upload, complete_upload, drop_uploads, find_file, keep_part


def send(ledger: Ledger, upload: str, number: int, data: bytes) -> str:
    part = ledger.blobs.part()
    part.write(data)
    return keep_part(ledger, upload, number, part)


@pytest.fixture(autouse=True)
def prepared(ledger: Ledger) -> None:
    tracking.prepare(ledger)


def test_parts_in_any_order_make_one_file(ledger: Ledger) -> None:
    rng, parts = random.Random(1), [bytes([i]) * (1000 + i) for i in range(12)]
    upload = begin_upload(ledger, "1/r/artifacts/file.bin", len(parts))
    order = list(range(1, 13))
    rng.shuffle(order)
    send(ledger, upload, order[0], b"sent again below")
    given = [(number, f'"{send(ledger, upload, number, parts[number - 1])}"') for number in order]
    complete_upload(ledger, upload, "1/r/artifacts/file.bin", given)
    digest, size = find_file(ledger, "1/r/artifacts/file.bin")
    assert bytes(ledger.blobs.get(digest)) == b"".join(parts)
    assert size == sum(map(len, parts))
    with ledger.records.snapshot() as sql:
        assert sql.all("SELECT * FROM upload_part") == []


def test_an_upload_is_completed_again_when_the_answer_was_lost(ledger: Ledger) -> None:
    upload = begin_upload(ledger, "a", 1)
    given = [(1, send(ledger, upload, 1, b"x"))]
    complete_upload(ledger, upload, "a", given)
    part = ledger.blobs.part()
    part.write(b"newer")
    tracking.put_file(ledger, "a", part)
    complete_upload(ledger, upload, "a", given)
    assert find_file(ledger, "a")[1] == 5, "nothing is done twice"
    with pytest.raises(DataError, match="belongs to 'a'"):
        complete_upload(ledger, upload, "b", given)
    with pytest.raises(DataError, match="takes no more parts"):
        send(ledger, upload, 1, b"y")


def test_a_file_whose_parts_are_not_all_there_is_refused_and_can_be_completed_later(ledger: Ledger) -> None:
    upload = begin_upload(ledger, "a", 2)
    send(ledger, upload, 2, b"two")
    with pytest.raises(DataError, match="part 1 of 2 is missing"):
        complete_upload(ledger, upload, "a", [])
    first = send(ledger, upload, 1, b"one")
    with pytest.raises(DataError, match="part 2 of 2 is missing or not what was sent"):
        complete_upload(ledger, upload, "a", [(1, first), (2, first)])
    complete_upload(ledger, upload, "a", [])
    assert find_file(ledger, "a")[1] == 6


@pytest.mark.parametrize(("path", "parts"), [("", 1), ("../a", 1), ("a", 0), ("a", 10_001), ("/etc/passwd", 2), ("a\0b", 1)])
def test_what_cannot_be_uploaded_is_refused(ledger: Ledger, path: str, parts: int) -> None:
    with pytest.raises(DataError):
        begin_upload(ledger, path, parts)


def test_a_part_that_nobody_asked_for_is_refused(ledger: Ledger) -> None:
    upload = begin_upload(ledger, "a", 2)
    for number in (0, 3, -1):
        with pytest.raises(DataError, match="no part"):
            send(ledger, upload, number, b"x")
    with pytest.raises(DataError, match="belongs to 'a'"):
        complete_upload(ledger, upload, "b", [])
    abort_upload(ledger, upload)
    abort_upload(ledger, upload)
    with pytest.raises(UnknownName):
        send(ledger, upload, 1, b"x")


def test_uploads_that_nobody_completes_are_forgotten_in_time(ledger: Ledger) -> None:
    upload = begin_upload(ledger, "a", 1)
    send(ledger, upload, 1, b"x")
    with ledger.records.transaction() as sql:
        assert drop_uploads(sql, 0) == 0
        assert drop_uploads(sql, 2**60) == 1
        assert sql.all("SELECT * FROM upload_part") == []


def test_a_part_that_came_beside_the_end_of_its_upload_is_forgotten(ledger: Ledger) -> None:
    done, gone, under_way = (begin_upload(ledger, name, 1) for name in "abc")
    for upload in (done, gone, under_way):
        send(ledger, upload, 1, b"x")
    complete_upload(ledger, done, "a", [])
    abort_upload(ledger, gone)
    with ledger.records.transaction() as sql:
        sql.many("INSERT INTO upload_part (upload, number, digest, size) VALUES (?, 2, 'd', 1)", [(done,), (gone,)])
        assert drop_uploads(sql, 0) == 0
        assert sql.all("SELECT upload, number FROM upload_part") == [(under_way, 1)]
        assert drop_uploads(sql, 2**60) == 1
        assert sql.all("SELECT id FROM upload") == []
