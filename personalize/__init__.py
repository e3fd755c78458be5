"""Per-user personalization: a small LoRA adapter for every user, taught by the user's own follow-ups.

Every name is imported when it is first used, so that ``import personalize`` costs nothing and loads no torch.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from personalize.access import Access
    from personalize.config import EngineSettings, LoraSettings, ServiceSettings, Settings
    from personalize.errors import PersonalizeError
    from personalize.service import Personalizer, SyncPersonalizer
    from personalize.types import (
        ChatRequest,
        Message,
        Outcome,
        Reply,
        ReplyChunk,
        SamplingParams,
        UpdateInfo,
        UserId,
        UserInfo,
        VersionInfo,
    )

_HOMES = {
    "personalize.access": ("Access",),
    "personalize.config": ("EngineSettings", "LoraSettings", "ServiceSettings", "Settings"),
    "personalize.errors": ("PersonalizeError",),
    "personalize.service": ("Personalizer", "SyncPersonalizer"),
    "personalize.types": (
        "ChatRequest",
        "Message",
        "Outcome",
        "Reply",
        "ReplyChunk",
        "SamplingParams",
        "UpdateInfo",
        "UserId",
        "UserInfo",
        "VersionInfo",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Access",
    "ChatRequest",
    "EngineSettings",
    "LoraSettings",
    "Message",
    "Outcome",
    "PersonalizeError",
    "Personalizer",
    "Reply",
    "ReplyChunk",
    "SamplingParams",
    "ServiceSettings",
    "Settings",
    "SyncPersonalizer",
    "UpdateInfo",
    "UserId",
    "UserInfo",
    "VersionInfo",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'personalize' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def _version() -> str:
    """The installed distribution's version; a source tree has none."""
    try:
        return metadata.version("personalize")
    except metadata.PackageNotFoundError:
        return "source"


def __dir__() -> list[str]:
    return __all__
