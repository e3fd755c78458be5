"""What becomes of a request's last user message as a follow-up, as far as it is known before the first token."""

import time
from dataclasses import dataclass

from adapters_store import Store
from adapters_store.types import TurnRef, User
from personalize.config import Learning
from personalize.turns import Paired, pair
from personalize.types import ChatRequest, Outcome
from personalize.updates.lessons import refusal


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the user and the process when the request comes in.

    Args:
        full: the store has paused learning for want of room.
        elsewhere: the user has heads, none of them for this base.
    """

    learning: Learning
    base_digest: str
    full: bool
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class Fate:
    """``outcome`` is ``queued`` where ``follow_up`` is to be queued for ``parent_turn_id``."""

    outcome: Outcome
    parent_turn_id: str | None = None
    follow_up: str | None = None


def fate(store: Store, request: ChatRequest, user: User, rules: Rules) -> Fate:
    """Return the fate of the last user message.

    Semantics: what the user or the operator has switched off comes before what pairing finds; pairing is asked in any
    case, because the turn is stored as a continuation of its parent.
    """
    lookup = _Lookup(store, user.user_id)
    pairing = pair(
        request.messages,
        key=store.user_key(user.user_id),
        find_by_prefix=lookup.by_prefix,
        find_by_reply=lookup.by_reply,
        find_by_prompt=lookup.by_prompt,
        find_by_request=lookup.by_request,
        now_s=time.time(),
    )
    outcome = _switched_off(request, user, rules)
    if not isinstance(pairing, Paired):
        return Fate(outcome or pairing.outcome, lookup.parent)
    outcome = outcome or _unfit(lookup.turns[pairing.turn.turn_id], rules)
    if outcome is not None:
        return Fate(outcome, pairing.turn.turn_id)
    return Fate(Outcome.QUEUED, pairing.turn.turn_id, pairing.follow_up)


class _Lookup:
    """The store's look-ups for one user, and what they found.

    Attributes:
        turns: every turn that was found, by id.
        parent: the newest turn with this very conversation, which the new turn is stored behind.
    """

    def __init__(self, store: Store, user_id: str):
        self.turns: dict[str, TurnRef] = {}
        self.parent: str | None = None
        self._store = store
        self._user_id = user_id

    def by_prompt(self, key: str) -> list[TurnRef]:
        return self._seen(self._store.find_turns_by_prompt(self._user_id, key))

    def by_request(self, request_id: str) -> list[TurnRef]:
        return self._seen(self._store.find_turns_by_request(self._user_id, request_id))

    def by_prefix(self, key: str) -> list[TurnRef]:
        found = self._seen(self._store.find_turns_by_prefix(self._user_id, key))
        self.parent = found[0].turn_id if found else None
        return found

    def by_reply(self, key: str, since_s: float) -> list[TurnRef]:
        return self._seen(self._store.find_turns_by_reply(self._user_id, key, since_s))

    def _seen(self, found: list[TurnRef]) -> list[TurnRef]:
        self.turns |= {turn.turn_id: turn for turn in found}
        return found


def _switched_off(request: ChatRequest, user: User, rules: Rules) -> Outcome | None:
    if not request.learn:
        return Outcome.SKIPPED_LEARNING_OFF
    refused = refusal(user, rules.learning)
    if refused is not None:
        return refused
    return Outcome.SKIPPED_BUDGET if rules.full else None


def _unfit(turn: TurnRef, rules: Rules) -> Outcome | None:
    """Why a turn that was found teaches nothing here: its ids are another tokenizer's, or its adapter is."""
    return Outcome.SKIPPED_NO_ADAPTER_FOR_BASE if rules.elsewhere or turn.base_digest != rules.base_digest else None
