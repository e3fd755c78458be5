"""From replies to OpenAI chat completions, whole and in chunks.

Beside OpenAI's own fields every answer says what became of it: an object ``personalization`` (for clients that keep
unknown fields), ``system_fingerprint`` (for those that do not) and three headers.
"""

import time
from collections.abc import Sequence
from typing import Any

from personalize.types import Reply, ReplyStart, Usage

POPULATION = "population-"
FINISH = {"stop": "stop", "length": "length", "cancel": "length"}  # OpenAI has no word for a cut reply


def fingerprint(base: str, version: int | None) -> str:
    """Which weights answered: ``<base>@v<number>``, or ``<base>@base``."""
    return f"{base}@base" if version is None else f"{base}@v{version}"


def _fingerprint(base: str, answer: Reply | ReplyStart) -> str:
    """The same for an answer; ``<base>@population-<number>`` where the population adapter gave it."""
    if answer.population_version is not None:
        return f"{base}@{POPULATION}{answer.population_version}"
    return fingerprint(base, answer.adapter_version)


def answer_headers(start: Reply | ReplyStart) -> dict[str, str]:
    """What a client can read without parsing the body."""
    version = "base" if start.adapter_version is None else str(start.adapter_version)
    if start.population_version is not None:
        version = f"{POPULATION}{start.population_version}"
    return {"x-request-id": start.request_id, "x-adapter-version": version, "x-learning": str(start.outcome)}


def completion_id(request_id: str) -> str:
    return f"chatcmpl-{request_id}"


def completion(replies: Sequence[Reply], *, model: str, base: str) -> dict[str, Any]:
    """A whole ``chat.completion``; the first choice is the one whose turn the top-level extension names."""
    first = replies[0]
    return {
        "id": completion_id(first.request_id),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": _fingerprint(base, first),
        "choices": [_choice(index, reply) for index, reply in enumerate(replies)],
        "usage": usage_object(replies),
        "personalization": extension(first),
    }


def _choice(index: int, reply: Reply) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": reply.text, "refusal": None},
        "finish_reason": FINISH[reply.finish_reason],
        "logprobs": None,
        "personalization": extension(reply),
    }


def extension(reply: Reply) -> dict[str, Any]:
    """The ``personalization`` object of an answer, or of one of its choices."""
    return {
        "outcome": str(reply.outcome),
        "request_id": reply.request_id,
        "adapter_version": reply.adapter_version,
        "population_version": reply.population_version,
        "turn_id": reply.turn_id,
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
    }


def usage_object(replies: Sequence[Reply]) -> dict[str, int]:
    """Token counts of a whole answer: the prompt counts once, however many choices."""
    total = Usage(replies[0].usage.prompt_tokens, sum(reply.usage.completion_tokens for reply in replies))
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.total_tokens,
    }


class ChunkWriter:
    """Writes the ``chat.completion.chunk`` objects of one streamed answer."""

    def __init__(self, start: ReplyStart, *, model: str, base: str, include_usage: bool):
        self._frame: dict[str, Any] = {
            "id": completion_id(start.request_id),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": _fingerprint(base, start),
        }
        self.include_usage = include_usage
        if include_usage:
            self._frame["usage"] = None
        self._opened: set[int] = set()

    def text(self, index: int, text: str) -> dict[str, Any]:
        """A piece of one choice; its first one names the role."""
        return self._frame | {"choices": [_delta(index, self._role(index) | {"content": text}, None)]}

    def end(self, index: int, reply: Reply) -> dict[str, Any]:
        """The last chunk of one choice."""
        chunk = self._frame | {"choices": [_delta(index, self._role(index), FINISH[reply.finish_reason])]}
        return chunk | {"personalization": extension(reply)}

    def _role(self, index: int) -> dict[str, str]:
        """What only the first delta of a choice carries."""
        if index in self._opened:
            return {}
        self._opened.add(index)
        return {"role": "assistant"}

    def usage(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The chunk that ``include_usage`` asks for: no choices, all counts."""
        return self._frame | {"choices": [], "usage": usage_object(replies)}


def _delta(index: int, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
