"""Files and SQL of per-user adapters: users, keys, turns, updates, versions, erasure, audit. Knows no tensors.

Errors are in ``adapters_store.errors``, the values that go in and out in ``adapters_store.types``.
"""

from adapters_store.blobs import BlobStore, LocalBlobs
from adapters_store.errors import StoreError
from adapters_store.folder import check_folder
from adapters_store.limits import Limits
from adapters_store.memory_blobs import MemoryBlobs
from adapters_store.store import Store
from adapters_store.types import NewTurn, Version

__all__ = [
    "BlobStore",
    "Limits",
    "LocalBlobs",
    "MemoryBlobs",
    "NewTurn",
    "Store",
    "StoreError",
    "Version",
    "check_folder",
]
