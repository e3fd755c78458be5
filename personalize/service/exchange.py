"""One accepted chat request, from its first token to its last record."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from personalize.backends import PromptRenderer
from personalize.protocols import InferenceBackend
from personalize.rendering.detokenizer import Detokenizer
from personalize.service.admission import Admitted
from personalize.service.choices import Choices
from personalize.service.ledger import Ledger, Verdict
from personalize.types import Completion, Outcome, Reply, ReplyChunk, ReplyStart, TokenChunk, Usage


class Background(Protocol):
    """Starts work that goes on when the request that wanted it is cancelled."""

    def __call__(self, work: Coroutine[Any, Any, Any], /) -> asyncio.Task[Any]: ...


@dataclass(slots=True)
class Draft:
    """One choice as far as it has been delivered.

    Attributes:
        num_shown: sampled ids up to the last chunk that showed text.
    """

    index: int
    token_ids: list[int] = field(default_factory=list)
    num_shown: int = 0
    text: str = ""
    ended: bool = False

    def add(self, chunk: TokenChunk) -> None:
        self.token_ids += chunk.token_ids
        if chunk.text:
            self.text += chunk.text
            self.num_shown = len(self.token_ids)


class Exchange:
    """Streams the choices of one request and sees to it that each leaves one turn, and the request one outcome.

    Semantics: the follow-up is queued when the answer to it has its first token (or its end), so that no update can
    start earlier, in whichever process; the turns are recorded after their last token, before the last chunk, so that
    a follow-up to it finds them. Neither delays a token. A request that the engine refuses before its first token was
    never accepted: it leaves nothing, and may be sent again.

    Args:
        queued: called when a follow-up has been queued.
    """

    def __init__(
        self,
        admitted: Admitted,
        inference: InferenceBackend,
        renderer: PromptRenderer,
        ledger: Ledger,
        background: Background,
        queued: Callable[[], None],
    ):
        self.admitted = admitted
        self._renderer = renderer
        self._ledger = ledger
        self._background = background
        self._queued = queued
        self._drafts = [Draft(i) for i in range(admitted.request.n)]
        self._verdict: asyncio.Task[Verdict] | None = None
        self._endings: list[asyncio.Task[Reply]] = []
        self._leaving: asyncio.Task[None] | None = None
        self._choices = Choices(inference, admitted.choices())

    @property
    def user_id(self) -> str | None:
        return self.admitted.user.user_id if self.admitted.user else None

    async def stop(self, error: Exception) -> None:
        """Cut the stream, whether or not anybody reads it; the reader's next chunk is ``error``."""
        self._choices.stop(error)
        await self._leave(refused=self._verdict is None)

    async def run(self) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the start, then pieces of text, and each choice's whole reply at its end."""
        refused = False
        try:
            yield ReplyChunk(start=self._start())
            async for index, chunk in self._choices:
                self._accept()
                draft = self._drafts[index]
                draft.add(chunk)
                if chunk.text:
                    yield ReplyChunk(chunk.text, index)
                if chunk.completion is not None and not draft.ended:  # else cut while the reader took his time
                    draft.ended = True
                    ending = self._background(self._end(draft, chunk.completion))
                    self._endings.append(ending)
                    yield ReplyChunk("", index, await asyncio.shield(ending))
        except Exception:
            refused = self._verdict is None
            raise
        finally:
            await self._leave(refused)

    def _start(self) -> ReplyStart:
        one = self.admitted
        return ReplyStart(one.request_id, one.version, one.outcome, one.population_version)

    def _accept(self) -> asyncio.Task[Verdict]:
        """The first token, or the end without one: now, and only now, the request gets its outcome."""
        if self._verdict is None:
            self._verdict = self._background(self._settle())
        return self._verdict

    async def _settle(self) -> Verdict:
        if self.admitted.follow_up is None:
            return self._ledger.settle(self.admitted)
        verdict = await asyncio.to_thread(self._ledger.settle, self.admitted)
        if verdict.outcome is Outcome.QUEUED:
            self._queued()
        return verdict

    async def _end(self, draft: Draft, completion: Completion) -> Reply:
        """Record a choice that is complete, or cut."""
        verdict = await self._accept()
        shown = draft.text
        turn_id = await asyncio.to_thread(self._ledger.record, self.admitted, completion, shown, verdict)
        return Reply(
            text=shown,
            finish_reason=completion.finish_reason,
            request_id=self.admitted.request_id,
            turn_id=turn_id,
            adapter_version=self.admitted.version,
            outcome=verdict.outcome,
            usage=Usage(len(self.admitted.prompt_ids), len(draft.token_ids)),
            population_version=self.admitted.population_version,
        )

    async def _leave(self, refused: bool) -> None:
        """Let go of the engine, then record what was cut off; once, and in a task that no reader can cancel."""
        if self._leaving is None:
            self._leaving = self._background(self._left(refused))
        await asyncio.shield(self._leaving)

    async def _left(self, refused: bool) -> None:
        await self._choices.aclose()
        for draft in self._drafts:
            if not refused and not draft.ended:
                draft.ended = True
                await self._end(draft, self._cut(draft))
        await asyncio.gather(*self._endings, return_exceptions=True)

    def _cut(self, draft: Draft) -> Completion:
        """Return the delivered part of a reply, up to its last delivered token."""
        words = Detokenizer(self._renderer, stop=self.admitted.request.sampling.stop)
        for token in draft.token_ids[: draft.num_shown]:
            words.feed(token)
        return words.finish("stop" if words.stopped else "cancel")[1]
