"""Whether the decode loop still turns: a green light that does not ask it would stay green over a hung engine."""

import asyncio
import time

from personalize.errors import Overloaded
from personalize.service import Personalizer
from personalize.types import ChatRequest, Message, SamplingParams

PROBE = ChatRequest((Message("user", "ping"),), sampling=SamplingParams(temperature=0.0, max_tokens=1), temporary=True)


class Pulse:
    """Generates one token when asked, at most once per ``fresh_s``; later askers share the answer.

    Under load the probe waits in line like everybody else, so a sign of life from any request (``saw``) while it
    waits is as good as its own token.

    Args:
        timeout_s: a loop that has shown no life for so long hangs.
        fresh_s: how long an answer is good.
    """

    def __init__(self, personalizer: Personalizer, *, timeout_s: float = 30.0, fresh_s: float = 1.0):
        self._personalizer = personalizer
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._asking = asyncio.Lock()
        self._asked_s = -float("inf")
        self._beats = False
        self._seen_s = -float("inf")

    def saw(self) -> None:
        """Note that the engine has just produced something."""
        self._seen_s = time.monotonic()

    async def beats(self) -> bool:
        async with self._asking:
            if time.monotonic() - self._asked_s > self._fresh_s:
                self._beats = await self._ask()
                self._asked_s = time.monotonic()
            return self._beats

    async def _ask(self) -> bool:
        begin_s = time.monotonic()
        try:
            await asyncio.wait_for(self._personalizer.complete(PROBE), self._timeout_s)
        except Overloaded:
            return True  # it refuses because it is busy
        except Exception:
            return self._seen_s > begin_s
        return True
