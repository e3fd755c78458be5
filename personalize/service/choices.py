"""The replies of one request, generated together."""

import asyncio
from collections.abc import Sequence

from personalize.protocols import InferenceBackend
from personalize.types import GenerateRequest, TokenChunk


class Choices:
    """Async iterator over ``(index, chunk)`` of all choices, in the order in which they arrive.

    Semantics: every choice is pulled by a task of its own, so that a slow reader holds no row of the engine and the
    choices can be stopped from outside. The first error ends the iteration. ``aclose`` cancels what still runs, waits
    until the engine has let go of it, and may be called twice.
    """

    def __init__(self, inference: InferenceBackend, requests: Sequence[GenerateRequest]):
        self._inference = inference
        self._arrived: asyncio.Queue[tuple[int, TokenChunk] | Exception | None] = asyncio.Queue()
        self._num_open = len(requests)
        self._error: Exception | None = None
        self._pulls = [asyncio.create_task(self._pull(i, request)) for i, request in enumerate(requests)]

    def __aiter__(self) -> "Choices":
        return self

    async def __anext__(self) -> tuple[int, TokenChunk]:
        while self._num_open:
            item = self._error or await self._arrived.get()
            if isinstance(item := self._error or item, Exception):
                self._num_open = 0
                raise item
            if item is not None:
                return item
            self._num_open -= 1
        raise StopAsyncIteration

    def stop(self, error: Exception) -> None:
        """End the iteration with ``error``; what has arrived and was not read is dropped."""
        self._error = error
        self._arrived.put_nowait(error)

    async def aclose(self) -> None:
        for pull in self._pulls:
            pull.cancel()
        await asyncio.gather(*self._pulls, return_exceptions=True)

    async def _pull(self, index: int, request: GenerateRequest) -> None:
        chunks = self._inference.generate(request)
        try:
            async for chunk in chunks:
                self._arrived.put_nowait((index, chunk))
            self._arrived.put_nowait(None)
        except Exception as error:
            self._arrived.put_nowait(error)
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]  # closing is what cancels the sequence
