"""The two places where state lives: records (rows) and blobs (bytes), each on disk or in memory; and the writer's lock."""

from tidemill.store.blobs import Blobs, FolderBlobs, MemoryBlobs, store_error
from tidemill.store.lock import holder, writer
from tidemill.store.records import Records, metadata

__all__ = ["Blobs", "FolderBlobs", "MemoryBlobs", "Records", "holder", "metadata", "store_error", "writer"]
