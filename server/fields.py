"""Every field of a chat completion request, and what becomes of it.

One table drives the validation, the table in ``docs/openai-surface.md`` and the test that compares it with the
installed ``openai`` client. Fields that nobody knows are accepted; fields that *are* known and would change the
answer are honoured or refused, never ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from personalize.errors import UnsupportedParameter

Treatment = Literal["honoured", "accepted", "refused"]


@dataclass(frozen=True, slots=True)
class Field:
    """One request field.

    Args:
        name: as it stands in the body.
        treatment: ``honoured``; ``accepted`` (it cannot change the answer, so it has no effect); ``refused``.
        note: one line for the documentation.
        neutral: values of a refused field that ask for what happens anyway; null always is one.
        ours: not OpenAI's field but an extension of this service.
    """

    name: str
    treatment: Treatment
    note: str
    neutral: tuple[Any, ...] = ()
    ours: bool = False


def _honoured(name: str, note: str, ours: bool = False) -> Field:
    return Field(name, "honoured", note, ours=ours)


def _accepted(name: str, note: str) -> Field:
    return Field(name, "accepted", note)


def _refused(name: str, note: str, *neutral: Any) -> Field:
    return Field(name, "refused", note, neutral)


FIELDS: tuple[Field, ...] = (
    _honoured("messages", "text only; `developer` = `system`; consecutive messages of one role are joined"),
    _honoured("model", "`base`, `base@base` (no adapter) or `base@v12` (one of your own versions)"),
    _honoured("max_tokens", "1 to the context; same meaning as `max_completion_tokens`"),
    _honoured("max_completion_tokens", "wins where `max_tokens` is absent; two different values are refused"),
    _honoured("temperature", "0 (greedy) to 2; default 1"),
    _honoured("top_p", "above 0, at most 1; default 1"),
    _honoured("seed", "repeatable for the same adapter version and batch shape"),
    _honoured("stop", "a string or at most 4; not part of the reply"),
    _honoured("n", "1 to the service's limit (default 8); more is refused; at most one choice is learned from"),
    _honoured("stream", "server-sent events, closed by `[DONE]`"),
    _honoured("stream_options", "`include_usage`; `include_obfuscation` only as false; only with `stream`"),
    _honoured("user", "names the person, where no user key does"),
    _honoured("safety_identifier", "names the person, before `user`"),
    _honoured("top_k", "0 keeps every token (as vLLM has it)", ours=True),
    _honoured("personalization", "`learn`, `temporary`, `version`; see below", ours=True),
    _accepted("metadata", "not stored"),
    _accepted("store", "nothing is kept beyond the recorded turn"),
    _accepted("parallel_tool_calls", "there are no tool calls"),
    _accepted("prompt_cache_key", "no cache is shared between requests"),
    _accepted("prompt_cache_options", "no cache is shared between requests"),
    _accepted("prompt_cache_retention", "no cache is shared between requests"),
    _refused("audio", "no audio"),
    _refused("frequency_penalty", "only 0", 0),
    _refused("presence_penalty", "only 0", 0),
    _refused("function_call", 'only "none" or "auto"', "none", "auto"),
    _refused("functions", "only an empty list", []),
    _refused("logit_bias", "only an empty object", {}),
    _refused("logprobs", "only false", False),
    _refused("top_logprobs", "only 0", 0),
    _refused("modalities", 'only ["text"]', ["text"]),
    _refused("moderation", "none is run"),
    _refused("prediction", "no predicted outputs"),
    _refused("reasoning_effort", 'only "none": thinking is off', "none"),
    _refused("response_format", 'only {"type": "text"}', {"type": "text"}),
    _refused("service_tier", 'only "auto" or "default"', "auto", "default"),
    _refused("tool_choice", 'only "none" or "auto"', "none", "auto"),
    _refused("tools", "only an empty list; tool messages already in the history are accepted", []),
    _refused("verbosity", 'only "medium"', "medium"),
    _refused("web_search_options", "no web search"),
)

REFUSED: Mapping[str, Field] = {field.name: field for field in FIELDS if field.treatment == "refused"}


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """Raise for the first known field that asks for something this service does not do.

    Raises:
        UnsupportedParameter: with the field as ``param``.
    """
    for name, field in REFUSED.items():
        value = body.get(name)
        if value is not None and not any(_same(value, neutral) for neutral in field.neutral):
            raise UnsupportedParameter(f"{name} is not supported: {field.note}", param=name)


def _same(value: object, neutral: object) -> bool:
    """Equality as JSON has it: 0 and 0.0 are one number, false is not 0."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def as_markdown() -> str:
    """The table of all fields, one row each."""
    rows = [f"| `{f.name}`{' (ours)' if f.ours else ''} | {f.treatment} | {f.note} |" for f in FIELDS]
    return "\n".join(["| field | | how |", "|---|---|---|", *rows]) + "\n"
