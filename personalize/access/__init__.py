"""Keys, and what their holders may do."""

from personalize.access.access import Access, KeyInfo
from personalize.access.principal import ACTIONS, Principal

__all__ = ["ACTIONS", "Access", "KeyInfo", "Principal"]
