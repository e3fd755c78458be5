"""Between JSON and the values of ``personalize.types``."""

from collections.abc import Mapping, Sequence
from typing import Any

from personalize.errors import InvalidParameter
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
    ReplyStart,
    TokenSignal,
    UndoReport,
    UpdateEffect,
    UpdateInfo,
    Usage,
    UserId,
    UserInfo,
    VersionInfo,
)


def chat_body(request: ChatRequest, model: str, *, stream: bool) -> dict[str, Any]:
    """The OpenAI request that asks for the same thing.

    Raises:
        InvalidParameter: the user is named by random id; a chat knows people by the application's own id only.
    """
    if isinstance(request.user, UserId):
        raise InvalidParameter("user", request.user, "the application's own id for the person")
    sampling = request.sampling
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


def start(headers: Mapping[str, str]) -> ReplyStart:
    """What the headers of a streamed answer say before its first token."""
    version = headers["x-adapter-version"]
    _, of_population, population = version.partition("population-")
    number = None if version == "base" or of_population else int(version)
    outcome = Outcome(headers["x-learning"])
    return ReplyStart(headers["x-request-id"], number, outcome, int(population) if of_population else None)


def user_info(body: Mapping[str, Any]) -> UserInfo:
    return UserInfo(**_known(UserInfo, body))


def version_info(body: Mapping[str, Any]) -> VersionInfo:
    return VersionInfo(**_known(VersionInfo, body))


def update_info(body: Mapping[str, Any]) -> UpdateInfo:
    fields = _known(UpdateInfo, body)
    fields["outcome"] = Outcome(body["outcome"])
    return UpdateInfo(**fields)


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


def undo_report(body: Mapping[str, Any]) -> UndoReport:
    return UndoReport(**_known(UndoReport, body))


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


def messages(raw: str | Sequence[Message | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as JSON: a bare text is one user message, a mapping travels as it is."""
    if isinstance(raw, str):
        return [{"role": "user", "content": raw}]
    return [{"role": m.role, "content": m.content} if isinstance(m, Message) else dict(m) for m in raw]
