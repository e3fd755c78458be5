"""From the line of a log to what it teaches the population adapter, and nothing of it is written down."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from adapters_store import Store
from adapters_store.types import User
from personalize.backends import Opened
from personalize.config import Learning
from personalize.errors import InvalidRequest
from personalize.logs import BrokenLine, LoggedConversation, interactions
from personalize.service.population_tally import Tally
from personalize.service.recordings import Draft, drafted, refusal_of
from personalize.service.validation import check_user
from personalize.turns import recorded_id
from personalize.types import Experience, Outcome
from personalize.updates.storage import translated


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation that may teach.

    Attributes:
        source: place of the log among the logs.
        person: hash of the external id.
        plan: by answered reply, what is to be learnt, or why nothing is.
        is_user: the person is a user of this store.
    """

    source: int
    person: str
    plan: tuple[Experience | Outcome, ...]
    is_user: bool


class Talks:
    """Reads conversations; a turn of a person is told once, however many lines hold it.

    Args:
        tally: where what cannot be used is counted.
        user: whose the conversations are that name nobody.
        without: people whose conversations are left out.

    Raises:
        InvalidParameter: one of these cannot be a person.
    """

    def __init__(
        self,
        store: Store,
        opened: Opened,
        learning: Learning,
        tally: Tally,
        user: str | None = None,
        without: Collection[str] = (),
    ):
        for name in (user, *without):
            check_user(name)
        self._store = store
        self._opened = opened
        self._learning: Learning = learning
        self._tally = tally
        self._user = user
        self._without = frozenset(without)
        self._seen: set[str] = set()

    def of(self, source: int, found: LoggedConversation | BrokenLine) -> Talk | None:
        """Return what a line teaches, or None; what cannot be shown to this model is a broken line, as a whole.

        Args:
            source: place of the log among the logs.
        """
        tally = self._tally
        tally.num_lines[source] += 1
        if isinstance(found, BrokenLine):
            tally.refuse(source, found.line, found.reason)
            return None
        name = found.user or self._user
        if name is None or name in self._without:
            tally.num_anonymous += name is None
            tally.num_left_out += name is not None
            return None
        try:
            check_user(name)
            return self._planned(source, name, found)
        except InvalidRequest as error:
            tally.refuse(source, found.line, error.message)
            return None

    def _planned(self, source: int, name: str, found: LoggedConversation) -> Talk:
        with translated():
            person, user = self._store.person(name), self._store.find_user(name)
        plan = tuple(self._experiences(person, user, found))
        self._seen.update(one.turn_id for one in plan if isinstance(one, Experience))
        return Talk(source, person, plan, is_user=user is not None)

    def _experiences(self, person: str, user: User | None, found: LoggedConversation) -> Iterator[Experience | Outcome]:
        refused = refusal_of(user, self._learning)
        for interaction in interactions(found.messages):
            draft = refused or drafted(self._opened, interaction)
            if not isinstance(draft, Draft):
                yield draft
                continue
            one = _experience(person, self._opened.base_digest, draft)
            yield Outcome.SKIPPED_DUPLICATE if one.turn_id in self._seen else one


def _experience(person: str, base_digest: str, draft: Draft) -> Experience:
    return Experience(
        turn_id=recorded_id(bytes.fromhex(person), base_digest, draft.answered),
        messages=draft.interaction.messages,
        prompt_ids=draft.prompt_ids,
        completion_ids=draft.completion.token_ids,
        completion_mask=draft.completion.mask,
        follow_up=draft.interaction.follow_up,
        finish_reason=draft.completion.finish_reason,
    )
