"""The SDK: ``Personalizer`` and its blocking twin."""

from personalize.service.blocking import SyncPersonalizer
from personalize.service.personalizer import Personalizer

__all__ = ["Personalizer", "SyncPersonalizer"]
