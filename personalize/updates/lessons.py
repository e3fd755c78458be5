"""From a claimed update to what the learner gets to see."""

from collections.abc import Iterator
from dataclasses import dataclass

from adapters_store import Store
from adapters_store.errors import NotFound
from adapters_store.types import ClaimedUpdate, StoredTurn, User, Version
from personalize.errors import InvalidRequest
from personalize.rendering.recorded import Reteller, as_sampled
from personalize.types import Experience, LearningState, Lesson, Message, Outcome


@dataclass(frozen=True, slots=True)
class LessonBase:
    """The base that a lesson is for: token ids of another one mean nothing to it.

    Args:
        renderer: tells turns of another base anew; None leaves them out.
    """

    base_digest: str
    renderer: Reteller | None = None

    def experience(self, turn: StoredTurn, follow_up: str) -> Experience | None:
        """Return the turn as this base takes it; None where it cannot."""
        if turn.base_digest == self.base_digest:
            return experience(turn, follow_up)
        try:
            return None if self.renderer is None else retold(self.renderer, turn, follow_up)
        except InvalidRequest:  # too long for this base's context, or against its chat template
            return None


def build_lesson(store: Store, update: ClaimedUpdate, head: Version | None, base: LessonBase) -> Lesson | Outcome:
    """Return the new turn and the remembered ones that still exist, or why this base cannot learn from the turn.

    Raises:
        NotFound: the turn itself is gone.
    """
    state = LearningState.from_json(head.state if head else None)
    turn = store.load_turn(update.turn_id)
    if turn.base_digest != base.base_digest:  # queued under another base, before this one was opened
        return Outcome.SKIPPED_NO_ADAPTER_FOR_BASE
    newest = experience(turn, update.follow_up)
    return Lesson(newest, tuple(_memory(store, update, state, base)), state, user_id=update.user_id)


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


def retold(renderer: Reteller, turn: StoredTurn, follow_up: str) -> Experience:
    """Return a turn of another base in the ids of ``renderer``: its messages and its reply's text, told anew.

    Raises:
        ContextTooLong: the prompt does not fit this base's context.
        TemplateError: this base's chat template refuses the messages, or the reply has no visible words in it.
    """
    messages = tuple(Message(role, content) for role, content in turn.messages)
    completion = as_sampled(renderer, turn.reply_text, ended=turn.finish_reason == "stop")
    return Experience(
        turn_id=turn.turn_id,
        messages=messages,
        prompt_ids=renderer.render(messages),
        completion_ids=completion.token_ids,
        completion_mask=completion.mask,
        follow_up=follow_up,
        finish_reason=completion.finish_reason,
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


def standing_wishes(store: Store, version: Version) -> tuple[str, ...] | None:
    """Return the follow-ups in the version's block, oldest first; None where one of them is gone or there is no block.

    A block that is not whole would say that a user never asked for what he did ask for.
    """
    wishes = []
    for turn_id in LearningState.from_json(version.state).block:
        try:
            turn = store.load_turn(turn_id)
        except NotFound:
            return None
        # An imported state may name any turn.
        if turn.user_id != version.user_id or not turn.follow_up:
            return None
        wishes.append(turn.follow_up)
    return tuple(wishes) or None


def _memory(store: Store, update: ClaimedUpdate, state: LearningState, base: LessonBase) -> Iterator[Experience]:
    """Remembered turns of this user whose data retention has left in place."""
    for turn_id in dict.fromkeys((*state.block, *state.replay)):
        if turn_id == update.turn_id:
            continue
        try:
            turn = store.load_turn(turn_id)
        except NotFound:
            continue
        # An imported state may name any turn: only the user's own may ever be shown to his learner.
        if turn.user_id == update.user_id and turn.follow_up and (remembered := base.experience(turn, turn.follow_up)):
            yield remembered
