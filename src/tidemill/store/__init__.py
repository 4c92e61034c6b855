"""The two places where state lives: records (rows) and blobs (bytes), each on disk or in memory; and the writer's lock."""

from tidemill.core import store_error
from tidemill.store.blobs import Blobs, FolderBlobs, MemoryBlobs, Part, put_file, put_pieces
from tidemill.store.driver import Driver, Occupied, Row
from tidemill.store.lock import held, holder, writer
from tidemill.store.records import Records, is_address, upsert
from tidemill.store.sqlite import LOST

__all__ = [
    "LOST",
    "Blobs",
    "Driver",
    "FolderBlobs",
    "MemoryBlobs",
    "Occupied",
    "Part",
    "Records",
    "Row",
    "held",
    "holder",
    "is_address",
    "put_file",
    "put_pieces",
    "store_error",
    "upsert",
    "writer",
]
