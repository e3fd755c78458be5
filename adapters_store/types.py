"""Plain values that the store takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adapters_store.sources import PopulationUse

LearningMode = Literal["active", "paused"]
Scope = Literal["admin", "app", "user"]
REVIEW_PASSED = "review_passed"
"""Metric of a reviewed version: 1 where it passed, 0 where it did not."""
RECOMPUTATION = "recomputation"
"""Origin of a version that was trained again without one of its turns; its parent is the version that it replaced."""
RECOMPUTED_FROM = "recomputed_from"
"""Metric of a recomputation: number of the version that its training began with; 0 where it began anew."""
BEGAN_WITH = "population"
"""Metric of a user's version: number of the population adapter's version that its line began with."""


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    Attributes:
        user_id: 32 random hex digits, drawn when the user was first seen.
        learning: what the user chose.
        consent: the last recorded answer; None where none was recorded.
        epoch: erasure epoch; a publish under another one is refused.
        num_turns: recorded turns whose data is still there.
        num_updates: updates that were applied.
        reserved: owns the population adapter, and is nobody.
    """

    user_id: str
    created_s: float
    learning: LearningMode
    consent: bool | None
    epoch: int
    num_turns: int
    num_updates: int
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; ``key_id`` is the public prefix inside the secret."""

    key_id: str
    scope: Scope
    user_id: str | None
    label: str
    created_s: float
    revoked_s: float | None


@dataclass(frozen=True, slots=True)
class NewTurn:
    """One served reply, ready to be recorded.

    Attributes:
        parent_turn_id: the turn that this conversation went on from; only what is new since then is stored.
        messages: the whole conversation as (role, content), ending with what the user asked.
        prompt_ids: the prompt exactly as it was served.
        completion_ids: the reply exactly as it was sampled.
        completion_mask: 1 where a token of the reply is trained.
        prompt_key: keyed hash of the conversation without this reply.
        prefix_key: keyed hash of the conversation with this reply.
        reply_key: keyed hash of this reply alone.
        outcome: what became of this request's message as a follow-up.
        update_id: the queued update that will say so, where the outcome is "queued".
        turn_id: made from the turn's content by the caller, so that the same turn is recorded once; None: drawn.
    """

    user_id: str
    request_id: str
    messages: tuple[tuple[str, str], ...]
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_mask: tuple[int, ...]
    reply_text: str
    finish_reason: str
    base_digest: str
    outcome: str
    parent_turn_id: str | None = None
    adapter_number: int | None = None
    prompt_key: str | None = None
    prefix_key: str | None = None
    reply_key: str | None = None
    update_id: str | None = None
    turn_id: str | None = None


@dataclass(frozen=True, slots=True)
class TurnRef:
    """What is known of a turn without reading its file.

    Attributes:
        paired: a follow-up was queued for it.
        taught: its own last message was queued as a follow-up to another turn.
    """

    turn_id: str
    user_id: str
    created_s: float
    finish_reason: str
    adapter_number: int | None
    base_digest: str
    reply_chars: int
    paired: bool
    taught: bool
    request_id: str


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn with its whole conversation, put together along the chain of its parents."""

    turn_id: str
    user_id: str
    request_id: str
    parent_turn_id: str | None
    created_s: float
    messages: tuple[tuple[str, str], ...]
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_mask: tuple[int, ...]
    reply_text: str
    finish_reason: str
    adapter_number: int | None
    base_digest: str
    follow_up: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """One committed version of a user's adapter.

    Attributes:
        parent: the number it was made from, or, of a recomputation, replaced; None if it began at the base model.
        digest: SHA-256 of configuration and weights, hex.
        num_bytes: of configuration and weights.
        origin: "update", "import", "rebase" or "population".
        state: what the recipe remembered: ids and numbers.
        moments_digest: of the optimizer's file; None where none was made, or kept.
    """

    user_id: str
    number: int
    parent: int | None
    digest: str
    base_digest: str
    rank: int
    num_bytes: int
    created_s: float
    pinned: bool
    origin: str
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)
    state: Mapping[str, Any] = field(default_factory=dict, compare=False)
    moments_digest: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """``u_<user id>@<number>-<first 16 hex digits of the digest>``: never used for other bytes."""
        return f"u_{self.user_id}@{self.number}-{self.digest[:16]}"

    @property
    def trained_from(self) -> int | None:
        """Number of the version whose weights it began with: the parent, unless it is a recomputation."""
        return int(self.metrics.get(RECOMPUTED_FROM, 0)) or None if self.origin == RECOMPUTATION else self.parent

    @property
    def review(self) -> bool | None:
        """Whether the version has passed a review; None before it has had one."""
        passed = self.metrics.get(REVIEW_PASSED)
        return None if passed is None else passed == 1


@dataclass(frozen=True, slots=True)
class QueuedUpdate:
    """``outcome``: "queued", or "skipped_duplicate" with the id of the update that the turn already has."""

    update_id: str
    outcome: str


@dataclass(frozen=True, slots=True)
class ClaimedUpdate:
    """An update that this process may run now.

    Attributes:
        attempts: starts so far, this one included.
        epoch: the erasure epoch to publish under.
        head: the version to start from; None for a new adapter.
    """

    update_id: str
    user_id: str
    turn_id: str
    request_id: str
    follow_up: str
    attempts: int
    epoch: int
    head: Version | None


@dataclass(frozen=True, slots=True)
class Update:
    """One follow-up's way through the queue; ``version`` is the number it made."""

    update_id: str
    user_id: str
    request_id: str
    turn_id: str
    outcome: str
    version: int | None
    created_s: float
    finished_s: float | None
    attempts: int
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log; ``digest`` covers the line and the digest before it."""

    number: int
    created_s: float
    actor: str
    action: str
    object_id: str
    detail: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class PruneReport:
    num_versions: int
    num_moments: int
    num_turns: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Orphans that were removed: files and folders that no row names."""

    num_removed: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What ``forget`` removed: counts only, and what it could not: the population adapters that the user is part of."""

    num_turns: int
    num_versions: int
    num_updates: int
    num_bytes: int
    finished_s: float
    population: tuple[PopulationUse, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How the store is doing.

    Attributes:
        journal_mode: "wal" or "delete" on SQLite, "server" on a database server.
        sqlite_version: of the linked library; None on a database server.
        free_fraction: free share of the disk under the files.
        learning_paused_reason: why nothing may be learnt now; None if it may.
        pending_updates: queued and running.
    """

    journal_mode: str
    sqlite_version: str | None
    free_fraction: float
    learning_paused_reason: str | None
    pending_updates: int


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """What a sound adapter folder holds.

    Attributes:
        modules: module name (without PEFT's prefix) -> (d_in, d_out).
        max_lora_rank: the smallest setting of vLLM that takes this rank.
        num_bytes: configuration and weights.
    """

    rank: int
    lora_alpha: float
    target_modules: tuple[str, ...] | str
    modules: Mapping[str, tuple[int, int]]
    dtypes: frozenset[str]
    max_lora_rank: int
    num_bytes: int
