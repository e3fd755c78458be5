"""One simulated life: chats, follow-ups, updates awaited, measurements at the turns that the script names."""

import time
from dataclasses import dataclass
from typing import Any

from personalize.errors import ContextTooLong
from personalize.evaluation.rates import MAX_REPLY_TOKENS
from personalize.evaluation.study.cells import Cell
from personalize.evaluation.study.measurements import Meter, Subject
from personalize.evaluation.study.people import Person
from personalize.evaluation.study.results import Results
from personalize.evaluation.study.scripts import REACHED, Stage
from personalize.evaluation.study.tally import Tally
from personalize.evaluation.users import Chat, Said
from personalize.service import Personalizer
from personalize.types import ChatRequest, Outcome, Reply, SamplingParams

DRIFT_TURN = 64
"""Where the KL to base is measured, besides the last turn."""


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What all lives on one service share.

    Attributes:
        model: digest of the base model.
    """

    app: Personalizer
    meter: Meter
    results: Results
    model: str


class Life:
    """Plays one cell's script as a user of the service."""

    def __init__(self, laboratory: Laboratory, cell: Cell):
        self._lab = laboratory
        self._cell = cell
        self._context = cell.arm.context(cell.profile, cell.seed)
        self._began = time.perf_counter()
        self._num_said = 0
        self._taught: dict[str, Any] = {}
        """How the teaching before a control went."""

    async def play(self) -> None:
        """Live through all stages."""
        for stage in self._cell.script.stages:
            await self._stage(stage)

    async def _stage(self, stage: Stage) -> None:
        person, tally = stage.person(self._cell.profile, self._cell.seed), Tally()
        halts = sorted({*stage.points, *stage.checks, stage.turns})
        while True:
            done = tally.follow_ups
            if done in stage.points:
                await self._measure(stage, tally, stage.start + done)
            if done in stage.checks and await self._reached(stage, done):
                break
            if done >= stage.turns or self._complained_enough(stage, tally):
                break
            next_halt = next(halt for halt in halts if halt > done)
            await self._chat(stage, person, tally, next_halt - done)
        if stage.end is not None:
            await self._measure(stage, tally, stage.end)

    async def _chat(self, stage: Stage, person: Person, tally: Tally, budget: int) -> None:
        """Have one chat of at least one and at most ``budget`` follow-ups."""
        chat, said = Chat(list(self._context.messages())), person.opening()
        reply = await self._say(chat, said)
        for place in range(min(stage.max_per_chat, budget)):
            said = person.reaction(said, reply.text)
            try:
                reply = await self._say(chat, said)
            except ContextTooLong:
                if place == 0:  # no chat at all fits: going on would never end
                    raise
                return
            self._context.hear(said)
            await self._settle(said, reply, tally)
            if self._complained_enough(stage, tally):
                return

    async def _say(self, chat: Chat, said: Said) -> Reply:
        self._num_said += 1
        sampling = SamplingParams(
            temperature=1.0, max_tokens=MAX_REPLY_TOKENS, seed=1_000_003 * self._cell.seed + self._num_said
        )
        request = ChatRequest(chat.ask(said.text), self._cell.user, sampling, learn=self._cell.arm.trains)
        (reply,) = await self._lab.app.complete(request)
        chat.answer(reply.text)
        return reply

    async def _settle(self, said: Said, reply: Reply, tally: Tally) -> None:
        app, user = self._lab.app, self._cell.user
        if reply.outcome is Outcome.QUEUED:
            await app.settled(user)
        outcome, metrics = await app.outcome(reply.request_id), {}
        if reply.outcome is Outcome.QUEUED:
            (newest,) = await app.updates(user, limit=1)
            metrics = newest.metrics
        tally.count(said, outcome, metrics)

    async def _reached(self, stage: Stage, done: int) -> bool:
        """Tell whether the teaching may end, and remember how it went."""
        reached = await self._lab.meter.joint(self._subject(stage)) >= REACHED
        self._taught = {"taught": done, "reached": reached}
        return reached

    async def _measure(self, stage: Stage, tally: Tally, turn: int) -> None:
        """Write the measurement down, unless an earlier run has."""
        key = self._cell.key(self._lab.model, turn)
        if self._lab.results.has(key):
            return
        drift = turn in (DRIFT_TURN, self._cell.script.measured[-1])
        found = await self._lab.meter.measure(self._subject(stage), drift=drift)
        seconds = round(time.perf_counter() - self._began, 1)
        self._lab.results.add({**key, **_rounded(found), **tally.to_json(), **self._taught, "seconds": seconds})

    def _subject(self, stage: Stage) -> Subject:
        profile = self._cell.profile
        donor = () if stage.donor is None else stage.donor(profile)
        return Subject(self._cell.user, stage.wants(profile), donor, self._context.messages())

    @staticmethod
    def _complained_enough(stage: Stage, tally: Tally) -> bool:
        return stage.max_complaints is not None and tally.complaints >= stage.max_complaints


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value
