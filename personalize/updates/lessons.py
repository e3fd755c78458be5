"""From a claimed update to what the learner gets to see."""

from collections.abc import Iterator

from adapters_store import Store
from adapters_store.errors import NotFound
from adapters_store.types import ClaimedUpdate, StoredTurn, User, Version
from personalize.types import Experience, LearningState, Lesson, Message, Outcome


def build_lesson(store: Store, update: ClaimedUpdate, head: Version | None) -> Lesson:
    """Return the new turn and the remembered ones that still exist.

    Raises:
        NotFound: the turn itself is gone.
    """
    state = LearningState.from_json(head.state if head else None)
    newest = experience(store.load_turn(update.turn_id), update.follow_up)
    return Lesson(newest, tuple(_memory(store, update, state)), state)


def experience(turn: StoredTurn, follow_up: str) -> Experience:
    """Return a stored turn as the learner takes it."""
    return Experience(
        turn_id=turn.turn_id,
        messages=tuple(Message(role, content) for role, content in turn.messages),
        prompt_ids=tuple(turn.prompt_ids),
        completion_ids=tuple(turn.completion_ids),
        completion_mask=tuple(turn.completion_mask),
        follow_up=follow_up,
        finish_reason=turn.finish_reason,  # type: ignore[arg-type]  # one of the three words, as it was recorded
    )


def refusal(user: User | None, learning: str) -> Outcome | None:
    """Return why nothing may be learnt from this user now, None if it may.

    Args:
        learning: the operator's setting; with "ask" only a recorded consent lets learning begin. A recorded refusal
            is honoured under every setting.
    """
    if user is None:
        return Outcome.CANCELLED_ERASURE
    if user.learning == "paused":
        return Outcome.SKIPPED_PAUSED
    if user.consent is False or (learning == "ask" and user.consent is None):
        return Outcome.SKIPPED_NO_CONSENT
    return None


def _memory(store: Store, update: ClaimedUpdate, state: LearningState) -> Iterator[Experience]:
    """Remembered turns of this user whose data retention has left in place."""
    for turn_id in dict.fromkeys((*state.block, *state.replay)):
        if turn_id == update.turn_id:
            continue
        try:
            turn = store.load_turn(turn_id)
        except NotFound:
            continue
        # An imported state may name any turn: only the user's own may ever be shown to his learner.
        if turn.user_id == update.user_id and turn.follow_up:
            yield experience(turn, turn.follow_up)
