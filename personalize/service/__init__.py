"""The SDK: ``Personalizer`` and its blocking twin, and ``Administration`` of a store without a model."""

from personalize.service.administration import Administration
from personalize.service.blocking import SyncPersonalizer
from personalize.service.personalizer import Personalizer

__all__ = ["Administration", "Personalizer", "SyncPersonalizer"]
