"""What a chat request must look like; every refusal names the value and the allowed range."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from personalize.config import ServiceSettings
from personalize.errors import ContextTooLong, InvalidParameter
from personalize.rendering.messages import parse_messages
from personalize.types import ChatRequest, Message, SamplingParams

MAX_USER_CHARS = 256
MAX_NUMBER = 10**18 - 1
Said = str | Sequence[Message | Mapping]
"""What ``chat`` takes: one user message as text, or a conversation."""


def conversation_of(said: Said) -> tuple[Message, ...]:
    """Return ``said`` as parsed messages."""
    return (Message("user", said),) if isinstance(said, str) else parse_messages(said)


def checked(request: ChatRequest, limits: ServiceSettings) -> ChatRequest:
    """Return the request with its messages parsed.

    Raises:
        InvalidParameter: naming the field, its value and what is allowed.
    """
    check_user(request.user)
    if isinstance(request.n, bool) or not isinstance(request.n, int) or not 1 <= request.n <= limits.max_choices:
        raise InvalidParameter("n", request.n, f"a whole number from 1 to {limits.max_choices}")
    if not isinstance(request.sampling, SamplingParams):
        raise InvalidParameter("sampling", request.sampling, "SamplingParams")
    _check_version(request)
    messages = parse_messages(request.messages)
    if len(messages) > limits.max_messages:
        raise InvalidParameter("messages", f"{len(messages)} messages", f"at most {limits.max_messages} messages")
    _check_sizes(messages, limits.max_message_chars)
    return replace(request, messages=messages)


def check_user(user: object) -> None:
    """Refuse what cannot be an external id."""
    if user is None:
        return
    if not isinstance(user, str) or not user.strip() or len(user) > MAX_USER_CHARS:
        raise InvalidParameter("user", user, f"a non-blank string of at most {MAX_USER_CHARS} characters")


def is_number(number: object) -> bool:
    """Whether a version can have this number."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_NUMBER


def capped(sampling: SamplingParams, num_prompt: int, max_model_len: int, limits: ServiceSettings) -> SamplingParams:
    """Return ``sampling`` with a ``max_tokens`` that fits the context.

    Raises:
        ContextTooLong: the prompt leaves no room for a single token.
    """
    room = max_model_len - num_prompt
    if room < 1:
        raise ContextTooLong(
            f"the prompt has {num_prompt} tokens; allowed: at most {max_model_len - 1}", param="messages"
        )
    return replace(sampling, max_tokens=min(sampling.max_tokens or limits.max_tokens, room))


def _check_sizes(messages: Sequence[Message], limit: int) -> None:
    for i, message in enumerate(messages):
        if len(message.content) > limit:
            raise InvalidParameter(
                f"messages[{i}].content", f"{len(message.content)} characters", f"at most {limit} characters"
            )


def _check_version(request: ChatRequest) -> None:
    version = request.version
    if version in ("head", "base"):
        return
    if not is_number(version):
        raise InvalidParameter("version", version, "'head', 'base' or the number of one of the user's versions")
    if request.user is None or request.temporary:
        raise InvalidParameter("version", version, "'head' or 'base' without a user or in a temporary chat")
