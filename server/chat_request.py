"""From an OpenAI chat completion body to a ``ChatRequest``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from personalize.errors import InvalidParameter, InvalidRequest, UnsupportedParameter
from personalize.rendering.messages import parse_messages
from personalize.types import ChatRequest, SamplingParams
from server.errors import ModelNotFound
from server.fields import refuse_unsupported

Version = int | Literal["head", "base"]
MAX_VERSION = 10**18 - 1
_OWN_VERSION = re.compile(r"v([1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A parsed body: what to ask the service, and how to say the answer.

    Attributes:
        model: the ``model`` field as it was sent; the answer repeats it.
    """

    request: ChatRequest
    model: str
    stream: bool
    include_usage: bool


def parse_chat(body: Mapping[str, Any], *, base: str, user: str | None, max_choices: int) -> ChatCall:
    """Validate a body and return the call it describes.

    Args:
        base: id of the model that is served.
        user: the person the caller speaks for, if any.
        max_choices: highest accepted ``n``.

    Raises:
        InvalidParameter, UnsupportedParameter, InvalidRequest: naming the field.
        ModelNotFound: ``model`` is neither the base nor a version of it.
    """
    refuse_unsupported(body)
    if not isinstance(body.get("messages"), list):
        raise InvalidParameter("messages", body.get("messages"), "a list of messages")
    model, version = _model(body, base)
    options = _options(body)
    stream = _flag(body, "stream", False)
    request = ChatRequest(
        messages=parse_messages(body["messages"]),
        user=user,
        sampling=_sampling(body),
        n=_choices(body, max_choices),
        learn=_flag(options, "learn", True),
        temporary=_flag(options, "temporary", False),
        version=_one_version(version, options),
    )
    return ChatCall(request, model, stream, _include_usage(body, stream))


def _model(body: Mapping[str, Any], base: str) -> tuple[str, Version]:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidParameter("model", model, f"{base!r}, '{base}@base' or '{base}@v<number>'")
    return model, model_version(model, base)


def model_version(model: str, base: str) -> Version:
    """Return the version that a model name asks for.

    Raises:
        ModelNotFound: it is no name of a model served here.
    """
    if model == base:
        return "head"
    if model == f"{base}@base":
        return "base"
    number = _OWN_VERSION.fullmatch(model.removeprefix(f"{base}@")) if model.startswith(f"{base}@") else None
    if number is None:
        raise ModelNotFound(f"no such model; served here: {base!r}, '{base}@base', '{base}@v<number>'", param="model")
    return int(number[1])


def _options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("personalization")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise InvalidParameter("personalization", options, "an object with learn, temporary, version")
    unknown = sorted(set(options) - {"learn", "temporary", "version"})
    if unknown:
        raise UnsupportedParameter(
            f"personalization has no {unknown[0]!r}; allowed: learn, temporary, version", param="personalization"
        )
    return options


def _one_version(named: Version, options: Mapping[str, Any]) -> Version:
    """The version of the model name and that of the extension, which must not differ."""
    value = options.get("version")
    if value is None:
        return named
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VERSION
    if not whole and value not in ("head", "base"):
        raise InvalidParameter("personalization.version", value, "'head', 'base' or a version number")
    if named not in ("head", value):
        raise InvalidRequest(f"model asks for version {named!r}, personalization for {value!r}", param="model")
    return value


def _sampling(body: Mapping[str, Any]) -> SamplingParams:
    defaults = SamplingParams()
    return SamplingParams(
        temperature=_or(body.get("temperature"), defaults.temperature),
        top_p=_or(body.get("top_p"), defaults.top_p),
        top_k=_or(body.get("top_k"), defaults.top_k),
        max_tokens=_max_tokens(body),
        stop=_stop(body.get("stop")),
        seed=body.get("seed"),
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    values = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
            raise InvalidParameter(name, value, "a whole number from 1 to 1000000")
    if len(set(values.values())) > 1:
        raise InvalidRequest(f"max_tokens and max_completion_tokens differ: {values}", param="max_tokens")
    return next(iter(values.values()), None)


def _stop(value: object) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise InvalidParameter("stop", value, "a string or at most 4 of them")
    return tuple(value)


def _choices(body: Mapping[str, Any], limit: int) -> int:
    value = _or(body.get("n"), 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidParameter("n", value, f"a whole number from 1 to {limit}")
    if value > limit:
        raise UnsupportedParameter(f"n = {value} is not supported; allowed: 1 to {limit}", param="n")
    return value


def _include_usage(body: Mapping[str, Any], stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidParameter("stream_options", options, "an object")
    if not stream:
        raise InvalidRequest("stream_options is allowed only with stream = true", param="stream_options")
    if options.get("include_obfuscation"):
        raise UnsupportedParameter("stream_options.include_obfuscation is not supported", param="stream_options")
    return _flag(options, "include_usage", False)


def _flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _or(values.get(name), default)
    if not isinstance(value, bool):
        raise InvalidParameter(name, value, "true or false")
    return value
