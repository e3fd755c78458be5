"""What an update did, told from what is stored: the facts, the learner's numbers, and replies before and after."""

import asyncio
import contextlib
import uuid
from collections.abc import Collection
from dataclasses import replace

from adapters_store import Store
from personalize.backends import Opened, PromptRenderer
from personalize.config import ServiceSettings
from personalize.errors import InvalidParameter, NotFound, Overloaded
from personalize.rendering.messages import parse_messages
from personalize.rendering.text_stream import TextStream
from personalize.service.case import Case, find_case
from personalize.service.tasks import Tasks
from personalize.service.validation import capped
from personalize.types import (
    AdapterRef,
    Explanation,
    GenerateRequest,
    Message,
    Probe,
    SamplingParams,
    TokenSignal,
)

MAX_PENDING = 8


class Explainer:
    """Explains updates, one at a time: each is a few passes and a few replies that nobody is waiting for.

    Attributes:
        tasks: explanations that are being made, or wait for it.

    Args:
        forgotten: ids of users of whom nothing may reach the engine any more; grows while it is in use.
    """

    def __init__(self, store: Store, opened: Opened, settings: ServiceSettings, forgotten: Collection[str]):
        self._store = store
        self._opened = opened
        self._settings = settings
        self._forgotten = forgotten
        self._one = asyncio.Lock()
        self.tasks = Tasks()

    async def explain(self, user_id: str, asked: str, probe: str | None) -> Explanation:
        """Return what the user's update did; see ``Personalizer.explain``."""
        prompt = self._prompt(probe)
        if len(self.tasks) >= MAX_PENDING:
            raise Overloaded(f"{MAX_PENDING} explanations are being made; allowed: no more at a time")
        if user_id in self._forgotten:
            raise NotFound("no such user", param="user")
        return await self.tasks.run(user_id, self._explain(user_id, asked, prompt))

    async def _explain(self, user_id: str, asked: str, prompt: Message | None) -> Explanation:
        async with self._one:
            case = await asyncio.to_thread(find_case, self._store, self._opened.base_digest, user_id, asked)
            effect = await self._opened.trainer.explain(case.request)
            experience = case.request.experience
            return Explanation(
                update_id=case.update.update_id,
                turn_id=case.update.turn_id,
                version=case.version,
                parent=case.parent,
                question=_question(case),
                follow_up=experience.follow_up,
                told=case.told,
                num_told_gone=case.num_told_gone,
                effect=replace(effect, tokens=with_texts(effect.tokens, self._opened.renderer)),
                probe=await self._probe(case, prompt),
                metrics=dict(case.update.metrics),
            )

    async def _probe(self, case: Case, prompt: Message | None) -> Probe:
        """Let base, parent and version answer ``prompt``, or the update's own one where none is given."""
        request, prompt_ids = case.request, case.request.experience.prompt_ids
        if prompt is not None:
            prompt_ids = self._opened.renderer.render((prompt,))
        base = await self._greedy(prompt_ids, None)
        before = base if request.parent is None else await self._greedy(prompt_ids, request.parent)
        after = await self._greedy(prompt_ids, request.adapter)
        return Probe(_question(case) if prompt is None else prompt.content, base, before, after)

    async def _greedy(self, prompt_ids: tuple[int, ...], adapter: AdapterRef | None) -> str:
        sampling = capped(SamplingParams(temperature=0.0), len(prompt_ids), self._opened.max_model_len, self._settings)
        request = GenerateRequest(f"explain-{uuid.uuid4().hex}", tuple(prompt_ids), sampling, adapter)
        text = ""
        async with contextlib.aclosing(self._opened.inference.generate(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                text += chunk.text
        return text

    def _prompt(self, probe: object) -> Message | None:
        limit = self._settings.max_message_chars
        if probe is None:
            return None
        if not isinstance(probe, str) or not probe.strip() or len(probe) > limit:
            raise InvalidParameter("probe", probe, f"a non-blank text of at most {limit} characters")
        return parse_messages((Message("user", probe),))[0]


def _question(case: Case) -> str:
    return next(message.content for message in reversed(case.request.experience.messages) if message.role == "user")


def with_texts(tokens: tuple[TokenSignal, ...], renderer: PromptRenderer) -> tuple[TokenSignal, ...]:
    """Say of every token what it adds to the reply's text, and whether it ends one."""
    stream, named = TextStream(renderer.decode), []
    for token in tokens:
        ends = token.token_id in renderer.end_ids
        named.append(replace(token, text="" if ends else stream.feed(token.token_id), ends=ends))
    if rest := stream.flush():
        last = max(place for place, token in enumerate(named) if not token.ends)
        named[last] = replace(named[last], text=named[last].text + rest)
    return tuple(named)
