"""Quotas, retention and grace periods of one store."""

from dataclasses import dataclass, fields

from adapters_store.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Limits:
    """What the store keeps, and how much of it.

    Args:
        keep_newest: versions per user and base that retention never touches.
        keep_daily_days: for so many days the last version of each day (UTC) stays.
        keep_moments: newest versions whose optimizer moments stay, beside the head's.
        keep_turn_days: a conversation is removed when its last turn is older.
        max_versions_per_user: more are refused; only pins and other bases can get there.
        max_turn_bytes_per_user: beyond it the user's oldest conversations are removed.
        max_turn_bytes: largest single turn file.
        max_adapter_bytes: largest adapter file.
        max_total_bytes: turns and versions (without moments) of all users; at it learning pauses. None: only the
            disk counts.
        max_used_fraction: share of the disk in use at which learning pauses.
        max_starts: starts of one update that may end in a crash; it is failed instead of started once more.
        orphan_grace_s: age below which the sweeper leaves a file without a row alone.
    """

    keep_newest: int = 10
    keep_daily_days: int = 30
    keep_moments: int = 2
    keep_turn_days: int = 90
    max_versions_per_user: int = 200
    max_turn_bytes_per_user: int = 64 * 2**20
    max_turn_bytes: int = 16 * 2**20
    max_adapter_bytes: int = 4 * 2**30
    max_total_bytes: int | None = None
    max_used_fraction: float = 0.90
    max_starts: int = 3
    orphan_grace_s: float = 3600.0

    def __post_init__(self):
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and (isinstance(value, bool) or not value >= 0):
                raise InvalidValue(item.name, value, "0 or more")
        if self.keep_newest < 1 or self.max_versions_per_user <= self.keep_newest:
            raise InvalidValue("max_versions_per_user", self.max_versions_per_user, "above keep_newest, which is >= 1")
        if not 0 < self.max_used_fraction <= 1:
            raise InvalidValue("max_used_fraction", self.max_used_fraction, "above 0, at most 1")
