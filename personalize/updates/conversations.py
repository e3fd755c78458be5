"""Conversations that a user is likely to go on with."""

from adapters_store import Store
from adapters_store.errors import NotFound
from adapters_store.types import Version

MAX_CONVERSATIONS = 2
WARM_S = 1800.0


def warm_conversations(store: Store, version: Version) -> tuple[tuple[int, ...], ...]:
    """Return the user's newest conversations as token ids, prompt and reply, the newest first.

    What he has not touched for ``WARM_S``, and what was said to another base, is left out.
    """
    found = []
    for turn_id in store.newest_turns(version.user_id, MAX_CONVERSATIONS, within_s=WARM_S):
        try:
            turn = store.load_turn(turn_id)
        except NotFound:  # erased meanwhile
            continue
        if turn.base_digest == version.base_digest:
            found.append((*turn.prompt_ids, *turn.completion_ids))
    return tuple(found)
