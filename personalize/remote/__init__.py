"""The SDK over HTTP: the same methods as ``Personalizer``, without a model in this process."""

from personalize.remote.client import RemotePersonalizer
from personalize.remote.sync import SyncRemotePersonalizer

__all__ = ["RemotePersonalizer", "SyncRemotePersonalizer"]
