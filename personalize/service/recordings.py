"""Learning from conversations that were recorded elsewhere: the offline form, through the live queue.

Every answered reply (x, y, o) becomes a turn with the recorded reply in this model's ids, and a queued update about it;
gate, step, guards and publish are those of a live follow-up. The reply is off-policy: another model, or another
version, wrote it. Source: arXiv 2603.12273, offline surrogate; a full-vocabulary objective needs no correction for it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from adapters_store import Store
from adapters_store.errors import Erased
from adapters_store.errors import NotFound as Missing
from adapters_store.types import NewTurn, StoreStatus, User
from personalize.backends import Opened
from personalize.config import Learning
from personalize.errors import Cancelled, ContextTooLong, InvalidParameter, NotFound, StorageUnavailable
from personalize.logs import Interaction, interactions
from personalize.rendering import as_sampled, parse_conversation
from personalize.service.people import find_user
from personalize.service.tasks import Tasks
from personalize.service.validation import check_user
from personalize.turns import prefix_key, prompt_key, recorded_id, reply_key
from personalize.types import Completion, LoggedLesson, Message, Outcome, UserId
from personalize.updates.lessons import refusal
from personalize.updates.storage import translated
from personalize.updates.threads import whole

MAX_WAITING = 4
"""Lessons of one user in the queue; live follow-ups need the rest of it."""
MAX_PENDING = 256
"""Updates in the queue, of everybody, beyond which nothing is added."""
POLL_S = 0.05
Queued = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Draft:
    """An interaction that can be learnt from, in this model's ids."""

    interaction: Interaction
    prompt_ids: tuple[int, ...]
    completion: Completion

    @property
    def answered(self) -> tuple[Message, ...]:
        """The conversation up to and with the reply."""
        return (*self.interaction.messages, Message("assistant", self.interaction.reply))


class Recordings:
    """Hands recorded conversations to the queue.

    Semantics: a turn's id is a keyed hash of its conversation and the base, and the queue takes a turn once for ever.
    So the same conversation may be handed in again, after a crash or by two processes, and is learnt from once. Its
    user is looked up once: who is forgotten meanwhile does not come back for the rest of it.

    Attributes:
        tasks: conversations that are being queued.

    Args:
        forgotten: ids of users of whom nothing may be learnt any more; grows while it is in use.
        queued: called when a lesson has been queued.
    """

    def __init__(self, store: Store, opened: Opened, learning: Learning, forgotten: Collection[str], queued: Queued):
        self.tasks = Tasks()
        self._store = store
        self._opened = opened
        self._learning: Learning = learning
        self._forgotten = forgotten
        self._queued = queued

    async def learn_from(
        self, user: str, messages: Sequence[Message | Mapping], max_lessons: int | None, dry_run: bool
    ) -> tuple[LoggedLesson, ...]:
        """See ``Personalizer.learn_from``."""
        check_user(user)
        if user is None:
            raise InvalidParameter("user", user, "whose conversation it is")
        if max_lessons is not None and (isinstance(max_lessons, bool) or max_lessons < 0):
            raise InvalidParameter("max_lessons", max_lessons, "a whole number from 0")
        said = parse_conversation(messages)
        user_id, plan = await asyncio.to_thread(self._plan, user, said, max_lessons)
        if dry_run or not any(isinstance(one, Draft) for one in plan):
            return _unqueued(plan, Outcome.QUEUED)
        if user_id is None:
            user_id = await whole(self._joined, user)
        lessons: list[LoggedLesson] = []
        try:
            await self.tasks.run(user_id, self._teach(user_id, plan, lessons))
        except Cancelled:
            if user_id not in self._forgotten:
                raise
        return (*lessons, *_unqueued(plan[len(lessons) :], Outcome.CANCELLED_ERASURE))

    # --- before anything is written ----------------------------------------------------------------------------------

    def _plan(self, name: str, said: Sequence[Message], limit: int | None) -> tuple[str | None, list[Draft | Outcome]]:
        """Return the id of who is known, and what to do with every interaction.

        A conversation that cannot be told raises here, as a whole.
        """
        plan: list[Draft | Outcome] = []
        with translated():
            person = find_user(self._store, name)
            if person is None and isinstance(name, UserId):
                raise NotFound("no such user", param="user")
            refused = self._refused(person)
            for interaction in interactions(said):
                if limit is not None and sum(isinstance(one, Draft) for one in plan) >= limit:
                    break
                plan.append(refused or self._drafted(person, interaction))
        return None if person is None else person.user_id, plan

    def _refused(self, person: User | None) -> Outcome | None:
        if (refused := refusal_of(person, self._learning)) is not None or person is None:
            return refused
        elsewhere = self._store.has_other_heads(person.user_id, self._opened.base_digest)
        return Outcome.SKIPPED_NO_ADAPTER_FOR_BASE if elsewhere else None

    def _drafted(self, person: User | None, interaction: Interaction) -> Draft | Outcome:
        if person is not None and self._known(person, interaction):
            return Outcome.SKIPPED_DUPLICATE
        return drafted(self._opened, interaction)

    def _known(self, person: User, interaction: Interaction) -> bool:
        """Whether the turn was queued before, from a log or, as far as it is still kept, by a live follow-up."""
        key = self._store.user_key(person.user_id)
        answered = (*interaction.messages, Message("assistant", interaction.reply))
        turn_id = recorded_id(key, self._opened.base_digest, answered)
        if self._store.updates(person.user_id, 1, turn_id=turn_id):
            return True
        same = self._store.find_turns_by_prefix(person.user_id, prefix_key(key, answered))
        return any(turn.paired and turn.base_digest == self._opened.base_digest for turn in same)

    # --- into the queue ----------------------------------------------------------------------------------------------

    def _joined(self, name: str) -> str:
        """Return the id of who is new and becomes a user; nobody does while nothing can be learnt."""
        with translated():
            self._status()
            return self._store.ensure_user(name).user_id

    async def _teach(self, user_id: str, plan: Sequence[Draft | Outcome], lessons: list[LoggedLesson]) -> None:
        """Queue one lesson after the other, for as long as the user is one; ``lessons`` grows meanwhile."""
        parent = None
        for one in plan:
            if isinstance(one, Outcome):
                lessons.append(LoggedLesson(one))
                continue
            await self._room(user_id)
            lesson, parent = await whole(self._queue, user_id, one, parent)
            lessons.append(lesson)
            if lesson.outcome is Outcome.CANCELLED_ERASURE:
                return

    async def _room(self, user_id: str) -> None:
        """Wait until the queue takes another lesson of this user without pushing one out.

        Raises:
            StorageUnavailable: learning is paused for want of space.
        """
        while not await asyncio.to_thread(self._has_room, user_id):
            await asyncio.sleep(POLL_S)

    def _has_room(self, user_id: str) -> bool:
        with translated():
            status = self._status()
            waiting = self._store.updates(user_id, MAX_WAITING, outcome=Outcome.QUEUED)
        return len(waiting) < MAX_WAITING and status.pending_updates < MAX_PENDING

    def _status(self) -> StoreStatus:
        """Return the store's state where something can be learnt."""
        status = self._store.status()
        if status.learning_paused_reason is not None:
            raise StorageUnavailable(f"nothing can be learnt now: {status.learning_paused_reason}")
        return status

    def _queue(self, user_id: str, draft: Draft, parent: str | None) -> tuple[LoggedLesson, str | None]:
        """Record the turn behind ``parent`` and queue its follow-up; return the lesson and the turn's id."""
        with translated():
            try:
                turn = self._turn(user_id, draft, parent)
                turn_id = self._store.record_turn(turn)
                update = self._store.queue_follow_up(
                    user_id, turn_id, turn.request_id, draft.interaction.follow_up, max_queued=MAX_PENDING
                )
            except (Erased, Missing):  # forgotten meanwhile
                return LoggedLesson(Outcome.CANCELLED_ERASURE), None
        self._queued()
        outcome = Outcome(update.outcome)
        return LoggedLesson(outcome, update.update_id if outcome is Outcome.QUEUED else None), turn_id

    def _turn(self, user_id: str, draft: Draft, parent: str | None) -> NewTurn:
        key = self._store.user_key(user_id)
        turn_id = recorded_id(key, self._opened.base_digest, draft.answered)
        return NewTurn(
            user_id=user_id,
            request_id=f"log-{turn_id}",
            parent_turn_id=parent,
            messages=tuple((message.role, message.content) for message in draft.interaction.messages),
            prompt_ids=draft.prompt_ids,
            completion_ids=draft.completion.token_ids,
            completion_mask=draft.completion.mask,
            reply_text=draft.interaction.reply,
            finish_reason=draft.completion.finish_reason,
            base_digest=self._opened.base_digest,
            prompt_key=prompt_key(key, draft.interaction.messages),
            prefix_key=prefix_key(key, draft.answered),
            reply_key=reply_key(key, draft.interaction.reply),
            outcome=Outcome.QUEUED.value,
            turn_id=turn_id,
        )


def _unqueued(plan: Sequence[Draft | Outcome], outcome: Outcome) -> tuple[LoggedLesson, ...]:
    """Return the plan as lessons, ``outcome`` for every draft."""
    return tuple(LoggedLesson(one if isinstance(one, Outcome) else outcome) for one in plan)


def refusal_of(person: User | None, learning: Learning) -> Outcome | None:
    """Return why nothing may be learnt from the person of a log; None for ``person`` is who was never seen here."""
    if person is None:
        return Outcome.SKIPPED_NO_CONSENT if learning == "ask" else None
    return refusal(person, learning)


def drafted(opened: Opened, interaction: Interaction) -> Draft | Outcome:
    """Return the interaction in this model's ids, or why it cannot be learnt from.

    Raises:
        TemplateError: the model's chat template refuses the messages, or the reply has no visible words in it.
    """
    completion = as_sampled(opened.renderer, interaction.reply)
    try:
        prompt_ids = opened.renderer.render(interaction.messages)
        told = opened.renderer.render(interaction.messages, (interaction.follow_up,))
    except ContextTooLong:
        return Outcome.SKIPPED_TOO_LONG
    if len(told) + len(completion.token_ids) > opened.max_model_len:
        return Outcome.SKIPPED_TOO_LONG
    return Draft(interaction, prompt_ids, completion)
