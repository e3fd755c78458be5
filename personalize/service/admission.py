"""From a chat request to everything that is settled before its first token."""

import uuid
from dataclasses import dataclass, replace

from adapters_store import Store
from adapters_store.errors import StorageUnavailable, StoreFull
from adapters_store.types import User, Version
from personalize.backends import Opened
from personalize.config import ServiceSettings
from personalize.errors import AdapterMismatch, NotFound
from personalize.service.fate import Fate, Rules, fate
from personalize.service.heads import Heads
from personalize.service.people import find_user
from personalize.service.validation import capped, checked
from personalize.types import AdapterRef, ChatRequest, GenerateRequest, Outcome, UserId
from personalize.updates.storage import reference, translated


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that will be answered.

    Attributes:
        request: as it came, messages parsed, ``max_tokens`` settled.
        user: whose turns are recorded; None: nothing is recorded.
        outcome: what becomes of the last user message; ``queued`` where it is still to be queued.
        parent_turn_id: the turn that the conversation goes on from, where it was found.
        follow_up: o, where it is to be queued.
    """

    request_id: str
    request: ChatRequest
    prompt_ids: tuple[int, ...]
    user: User | None
    adapter: AdapterRef | None
    outcome: Outcome
    parent_turn_id: str | None = None
    follow_up: str | None = None

    @property
    def version(self) -> int | None:
        """Number of the user's own version that answers."""
        return self.adapter.number if self.adapter and self.user and self.adapter.user_id == self.user.user_id else None

    @property
    def population_version(self) -> int | None:
        """Number of the population adapter's version, where that answers."""
        return self.adapter.number if self.adapter and self.version is None else None

    def choices(self) -> list[GenerateRequest]:
        """Return one request to the engine per choice; a seed is counted up, else all would be one text."""
        sampling, seed = self.request.sampling, self.request.sampling.seed
        return [
            GenerateRequest(
                f"{self.request_id}-{i}",
                self.prompt_ids,
                sampling if seed is None or i == 0 else replace(sampling, seed=(seed + i + 2**63) % 2**64 - 2**63),
                self.adapter,
                self.user.user_id if self.user else None,
            )
            for i in range(self.request.n)
        ]


class Admission:
    """Decides, with nothing but reads of the store, how a request is served and what it teaches."""

    def __init__(self, store: Store, opened: Opened, heads: Heads, settings: ServiceSettings):
        self._store = store
        self._opened = opened
        self._heads = heads
        self._settings = settings

    def admit(self, request: ChatRequest) -> Admitted:
        """Return how to serve ``request``; it blocks.

        Raises:
            InvalidRequest: it cannot be honoured.
            NotFound: the user has no such version.
            AdapterMismatch: the version was made for another base.
            StorageUnavailable: the store cannot even be read.
        """
        request = checked(request, self._settings)
        prompt_ids = self._opened.renderer.render(request.messages)
        sampling = capped(request.sampling, len(prompt_ids), self._opened.max_model_len, self._settings)
        request = replace(request, sampling=sampling)
        plain = Admitted(uuid.uuid4().hex, request, tuple(prompt_ids), None, None, Outcome.SKIPPED_ANONYMOUS)
        if request.user is None:
            return plain
        if request.temporary:
            return replace(plain, outcome=Outcome.SKIPPED_TEMPORARY)
        with translated():
            return self._admit_user(plain, request.user)

    def _admit_user(self, plain: Admitted, name: str) -> Admitted:
        asked = plain.request.version
        user = find_user(self._store, name)
        if user is None and (isinstance(asked, int) or isinstance(name, UserId)):
            raise NotFound("no such user", param="user")
        try:
            user = user or self._store.ensure_user(name)
        except StorageUnavailable as error:  # a newcomer while nothing can be written is answered, not remembered
            return replace(plain, outcome=unstorable(error))
        version = self._version(user.user_id, asked)
        fate = self._fate(plain.request, user)
        return replace(
            plain,
            user=user,
            adapter=reference(self._store, version),
            outcome=fate.outcome,
            parent_turn_id=fate.parent_turn_id,
            follow_up=fate.follow_up,
        )

    def _version(self, user_id: str, asked: int | str) -> Version | None:
        if asked == "base":
            return None
        if not isinstance(asked, int):
            return self._heads.current(user_id)
        version = self._store.version(user_id, asked)
        if version.base_digest != self._opened.base_digest:
            raise AdapterMismatch(f"version {asked} was made for another base model", param="version")
        return version

    def _fate(self, request: ChatRequest, user: User) -> Fate:
        store, base_digest = self._store, self._opened.base_digest
        reason = store.status().learning_paused_reason
        elsewhere = self._heads.current(user.user_id) is None and store.has_other_heads(user.user_id, base_digest)
        rules = Rules(self._settings.learning, base_digest, full=reason is not None, elsewhere=elsewhere)
        return fate(store, request, user, rules)


def unstorable(error: Exception) -> Outcome:
    """Return the outcome of a request whose lesson cannot be kept: the store is full, or out of order."""
    return Outcome.SKIPPED_BUDGET if isinstance(error, StoreFull) else Outcome.FAILED
