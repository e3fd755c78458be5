"""Versions of a user's adapter: the name of one, and what is known about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from personalize.errors import InvalidParameter

ADAPTER_NAME = re.compile(r"u_(?P<user>[0-9a-f]{32})@(?P<number>[1-9][0-9]{0,17})-(?P<digest>[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """The only identity of an adapter version that leaves a process: a name and where its folder lies.

    Name: ``u_<32 hex of the user's random id>@<number>-<16 hex of the content digest>``. A name is never
    used for other bytes.
    """

    name: str
    path: str

    def __post_init__(self):
        if not ADAPTER_NAME.fullmatch(self.name):
            raise InvalidParameter("adapter name", self.name, "u_<32 hex>@<number>-<16 hex>")

    @property
    def user_id(self) -> str:
        """The user's random id, 32 hex digits."""
        return self.name[2:34]

    @property
    def number(self) -> int:
        return int(self.name[35:].partition("-")[0])


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One committed version of a user's adapter."""

    number: int
    parent: int | None
    digest: str
    base_digest: str
    rank: int
    num_bytes: int
    created_s: float
    is_head: bool
    pinned: bool
    origin: str
    metrics: Mapping[str, float]
