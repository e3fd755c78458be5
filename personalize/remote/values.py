"""Between JSON and the values of ``personalize.types``."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from personalize.errors import InvalidParameter, Unreachable
from personalize.types import (
    ChatRequest,
    Drift,
    Explanation,
    ForgetReceipt,
    Message,
    Norms,
    Outcome,
    PopulationUse,
    Probe,
    Reply,
    ReplyChunk,
    ReplyStart,
    SamplingParams,
    TokenSignal,
    UndoReport,
    UpdateEffect,
    UpdateInfo,
    Usage,
    UserId,
    UserInfo,
    VersionInfo,
)

P = ParamSpec("P")
T = TypeVar("T")


def _reading(parse: Callable[P, T]) -> Callable[P, T]:
    """Make a reader of answers raise ``Unreachable`` for one of another shape: something else has sent it."""

    @functools.wraps(parse)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return parse(*args, **kwargs)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable("the answer is not one of this service: is this the right address?") from error

    return read


# --- out --------------------------------------------------------------------------------------------------------------


def chat_body(request: ChatRequest, model: str, *, stream: bool) -> dict[str, Any]:
    """The OpenAI request that asks for the same thing.

    Raises:
        InvalidParameter: the user is named by random id; a chat knows people by the application's own id only. Or the
            messages are no list, or ``sampling`` is something else.
    """
    if isinstance(request.user, UserId):
        raise InvalidParameter("user", request.user, "the application's own id for the person")
    sampling = _checked(request.sampling)
    body: dict[str, Any] = {
        "model": model,
        "messages": messages(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "n": request.n,
        "safety_identifier": request.user,
        "stream": stream,
        "personalization": {"learn": request.learn, "temporary": request.temporary, "version": request.version},
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def sampling_of(sampling: SamplingParams | None, max_tokens: int | None) -> SamplingParams:
    """How a reply is drawn, where ``max_tokens`` may override the one in ``sampling``."""
    sampling = _checked(sampling or SamplingParams())
    return sampling if max_tokens is None else replace(sampling, max_tokens=max_tokens)


def _checked(sampling: SamplingParams) -> SamplingParams:
    if not isinstance(sampling, SamplingParams):
        raise InvalidParameter("sampling", sampling, "SamplingParams")
    return sampling


def messages(raw: str | Sequence[Message | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as JSON: a bare text is one user message, a mapping travels as it is; the server looks into them.

    Raises:
        InvalidParameter: not a list of messages and mappings.
    """
    if isinstance(raw, str):
        return [{"role": "user", "content": raw}]
    if isinstance(raw, bytes | Mapping) or not isinstance(raw, Sequence):
        raise InvalidParameter("messages", raw, "a list of messages")
    return [_message(item, f"messages[{i}]") for i, item in enumerate(raw)]


def _message(item: Message | Mapping[str, Any], where: str) -> dict[str, Any]:
    if isinstance(item, Message):
        return {"role": item.role, "content": item.content}
    if not isinstance(item, Mapping):
        raise InvalidParameter(where, item, "an object with role and content")
    return dict(item)


# --- in ---------------------------------------------------------------------------------------------------------------


@_reading
def model(body: Mapping[str, Any]) -> str:
    """Id of the first model that is listed."""
    return str(body["data"][0]["id"])


@_reading
def listed(parse: Callable[[Any], T], body: Mapping[str, Any]) -> tuple[T, ...]:
    """Everything in a list."""
    return tuple(map(parse, body["data"]))


@_reading
def outcome(body: Mapping[str, Any]) -> Outcome:
    return Outcome(body["outcome"])


@_reading
def undone(body: Mapping[str, Any]) -> VersionInfo | None:
    """The version that an undo led to; None is the base model."""
    return None if body["version"] is None else version_info(body["version"])


@_reading
def first_reply(body: Mapping[str, Any]) -> Reply:
    return replies(body)[0]


@_reading
def replies(body: Mapping[str, Any]) -> tuple[Reply, ...]:
    """The replies of a whole chat completion, one per choice."""
    return tuple(
        reply(choice["personalization"], choice["message"]["content"], choice["finish_reason"])
        for choice in body["choices"]
    )


def reply(extension: Mapping[str, Any], text: str, finish_reason: str) -> Reply:
    """One reply; OpenAI has no word for a cancelled one, which comes back as ``length``."""
    return Reply(
        text=text,
        finish_reason="stop" if finish_reason == "stop" else "length",
        request_id=extension["request_id"],
        turn_id=extension["turn_id"],
        adapter_version=extension["adapter_version"],
        outcome=Outcome(extension["outcome"]),
        usage=Usage(extension["prompt_tokens"], extension["completion_tokens"]),
        population_version=extension.get("population_version"),
    )


@_reading
def start(headers: Mapping[str, str]) -> ReplyStart:
    """What the headers of a streamed answer say before its first token."""
    version = headers["x-adapter-version"]
    _, of_population, population = version.partition("population-")
    number = None if version == "base" or of_population else int(version)
    outcome = Outcome(headers["x-learning"])
    return ReplyStart(headers["x-request-id"], number, outcome, int(population) if of_population else None)


@_reading
def chunks(event: Mapping[str, Any], texts: dict[int, str]) -> list[ReplyChunk]:
    """One event of a stream; ``texts`` collects what each choice said so far."""
    return [_chunk(choice, event, texts) for choice in event["choices"]]


def _chunk(choice: Mapping[str, Any], event: Mapping[str, Any], texts: dict[int, str]) -> ReplyChunk:
    index, text = choice["index"], choice["delta"].get("content") or ""
    texts[index] = texts.get(index, "") + text
    whole = None
    if choice["finish_reason"] is not None:
        whole = reply(event["personalization"], texts[index], choice["finish_reason"])
    return ReplyChunk(text=text, index=index, reply=whole)


@_reading
def user_info(body: Mapping[str, Any]) -> UserInfo:
    return UserInfo(**_known(UserInfo, body))


@_reading
def version_info(body: Mapping[str, Any]) -> VersionInfo:
    return VersionInfo(**_known(VersionInfo, body))


@_reading
def update_info(body: Mapping[str, Any]) -> UpdateInfo:
    fields = _known(UpdateInfo, body)
    fields["outcome"] = Outcome(body["outcome"])
    return UpdateInfo(**fields)


@_reading
def explanation(body: Mapping[str, Any]) -> Explanation:
    effect = body["effect"]
    fields = _known(Explanation, body) | {
        "told": tuple(body["told"]),
        "effect": UpdateEffect(
            **_known(UpdateEffect, effect)
            | {
                "tokens": tuple(TokenSignal(**_known(TokenSignal, token)) for token in effect["tokens"]),
                "drift": Drift(**_known(Drift, effect["drift"])),
                "norms": Norms(**_known(Norms, effect["norms"])),
            }
        ),
        "probe": Probe(**_known(Probe, body["probe"])),
    }
    return Explanation(**fields)


@_reading
def undo_report(body: Mapping[str, Any]) -> UndoReport:
    return UndoReport(**_known(UndoReport, body))


@_reading
def receipt(body: Mapping[str, Any]) -> ForgetReceipt:
    fields = _known(ForgetReceipt, body)
    fields["population"] = tuple(_use(use) for use in body.get("population", ()))
    return ForgetReceipt(**fields)


def _use(body: Mapping[str, Any]) -> PopulationUse:
    fields = _known(PopulationUse, body)
    fields |= {name: tuple(body[name]) for name in ("sources", "in_sources")}
    return PopulationUse(**fields)


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version of the SDK knows; a newer server may send more."""
    return {name: body[name] for name in cls.__dataclass_fields__ if name in body}
