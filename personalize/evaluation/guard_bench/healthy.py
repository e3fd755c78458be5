"""Healthy users of the public SDK: what the guards refuse of them is refused wrongly."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from personalize.evaluation.rates import MAX_REPLY_TOKENS
from personalize.evaluation.study.profiles import opposite
from personalize.evaluation.users import Chat, Said, SimulatedUser
from personalize.service import Personalizer
from personalize.types import ChatRequest, Outcome, Reply, SamplingParams
from personalize.world.preferences import Preference

FOLLOW_UPS_PER_CHAT = 3
REFUSALS = frozenset(outcome for outcome in Outcome if outcome.value.startswith("rejected_"))
_PAIRS = (
    (("length", "short"), ("emoji", "emoji")),
    (("length", "short"), ("greeting", "greeting")),
    (("format", "bullets"), ("closing", "question")),
    (("tone", "casual"), ("length", "long")),
)


@dataclass(slots=True)
class Flipping:
    """Wants the opposite from the middle on."""

    name: str
    before: SimulatedUser
    after: SimulatedUser
    turns: int
    said: int = 0

    def opening(self) -> Said:
        return self._now.opening()

    def reaction(self, said: Said, reply: str) -> Said:
        self.said += 1
        return self._now.reaction(said, reply)

    @property
    def _now(self) -> SimulatedUser:
        return self.before if self.said < self.turns // 2 else self.after


Person = SimulatedUser | Flipping


def terse(seed: int, turns: int) -> list[Person]:
    """Return users who want replies of one sentence."""
    others = ("emoji", "emoji"), ("greeting", "greeting"), ("tone", "casual"), ("heading", "heading")
    return [_user(f"terse-{n}", seed, (("length", "short"), other)) for n, other in enumerate(others)]


def wordy(seed: int, turns: int) -> list[Person]:
    """Return users who wrap their complaints, and want long replies."""
    others = ("format", "numbered"), ("tone", "formal"), ("example", "example"), ("signoff", "signoff")
    return [_user(f"wordy-{n}", seed, (("length", "long"), other), wordy=True) for n, other in enumerate(others)]


def flipping(seed: int, turns: int) -> list[Person]:
    """Return users who change their minds after half of their turns."""

    def person(number: int, pairs: Sequence[tuple[str, str]]) -> Person:
        wishes = tuple(Preference(*pair) for pair in pairs)
        name = f"flipping-{number}"
        return Flipping(name, SimulatedUser(name, wishes, seed), SimulatedUser(name, opposite(wishes), seed), turns)

    return [person(number, pairs) for number, pairs in enumerate(_PAIRS)]


GROUPS: dict[str, Callable[[int, int], list[Person]]] = {"terse": terse, "wordy": wordy, "flipping": flipping}


def _user(name: str, seed: int, pairs: Sequence[tuple[str, str]], *, wordy: bool = False) -> Person:
    return SimulatedUser(name, tuple(Preference(*pair) for pair in pairs), seed, wordy=wordy)


@dataclass(slots=True)
class Group:
    """Users of one service who chat at the same time; after every round of chats the idle reviews have their turn.

    Attributes:
        outcomes: of all follow-ups.
    """

    app: Personalizer
    people: list[Person]
    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    _num_said: int = 0

    async def run(self, turns: int) -> dict[str, Any]:
        """Let everybody say ``turns`` follow-ups; return what became of them, and of the versions."""
        left = turns
        while left > 0:
            count = min(FOLLOW_UPS_PER_CHAT, left)
            await asyncio.gather(*(self._chat(person, count) for person in self.people))
            await self._reviewed()
            left -= count
        reviews = self.app.status()["reviews"]
        return {
            "outcomes": dict(self.outcomes),
            "passed": reviews.get("passed", 0),
            "withdrawn": reviews.get("withdrawn", 0),
            "overtaken": reviews.get("overtaken", 0),
            "breaches": dict(self._breaches()),
        }

    async def _chat(self, person: Person, count: int) -> None:
        chat, said = Chat(), person.opening()
        reply = await self._say(person.name, chat, said)
        for _ in range(count):
            said = person.reaction(said, reply.text)
            reply = await self._say(person.name, chat, said)
            await self.app.settled(person.name)
            self.outcomes[(await self.app.outcome(reply.request_id)).value] += 1

    async def _say(self, user: str, chat: Chat, said: Said) -> Reply:
        self._num_said += 1
        sampling = SamplingParams(max_tokens=MAX_REPLY_TOKENS, seed=1_000_003 * self.seed + self._num_said)
        (reply,) = await self.app.complete(ChatRequest(chat.ask(said.text), user, sampling))
        chat.answer(reply.text)
        return reply

    async def _reviewed(self) -> None:
        while self.app.status()["reviews"]["waiting"]:
            await asyncio.sleep(0.05)

    def _breaches(self) -> Counter[str]:
        lines = self.app.store.audit_log(10_000)
        return Counter(str(line.detail["reason"]) for line in lines if line.actor == "review")
