"""Messages: from what clients send to what a chat template is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from personalize.errors import InvalidParameter, UnsupportedParameter
from personalize.types import ROLES, Message, visible_text

_ALIASES = {"developer": "system", "function": "tool"}
_TEXT_FIELDS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


@dataclass(frozen=True, slots=True)
class Traits:
    """What a chat template can show; found out by trying (``ChatTemplate``).

    Attributes:
        system: a system message at the front.
        tool: messages of role tool.
        leading_assistant: an assistant message before the first user message.
    """

    system: bool = True
    tool: bool = True
    leading_assistant: bool = True


def parse_messages(raw: Sequence[Mapping | Message]) -> tuple[Message, ...]:
    """Read the ``messages`` of a chat request, in OpenAI form or already parsed.

    ``developer`` becomes system and ``function`` tool; text parts are joined by newlines; null is empty; CRLF becomes
    ``\\n``, lone surrogates U+FFFD; a think block at the start of an assistant text is dropped; other keys are ignored.

    Raises:
        InvalidParameter: not a list, an unknown role, content of another type, nothing to answer.
        UnsupportedParameter: an image, audio or file part.
    """
    messages = parse_conversation(raw)
    _check_answerable(messages)
    return messages


def parse_conversation(raw: Sequence[Mapping | Message]) -> tuple[Message, ...]:
    """Read messages as ``parse_messages`` does, of a conversation that may end anywhere.

    Raises:
        InvalidParameter: not a list, an unknown role, content of another type.
        UnsupportedParameter: an image, audio or file part.
    """
    if isinstance(raw, str | bytes | Mapping) or not isinstance(raw, Sequence):
        raise InvalidParameter("messages", raw, "a list of messages")
    return tuple(_message(item, f"messages[{i}]") for i, item in enumerate(raw))


def _message(item: object, where: str) -> Message:
    if isinstance(item, Message):
        role, content = item.role, item.content
    elif isinstance(item, Mapping):
        role, content = item.get("role"), item.get("content")
    else:
        raise InvalidParameter(where, item, "an object with role and content")
    if not isinstance(role, str) or (role := _ALIASES.get(role, role)) not in ROLES:
        raise InvalidParameter(f"{where}.role", role, f"{', '.join((*ROLES, *_ALIASES))}")
    text = _clean(_text(content, f"{where}.content"))
    return Message(role, visible_text(text) if role == "assistant" else text)


def _text(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        return "\n".join(_part(part, f"{where}[{i}]") for i, part in enumerate(content))
    raise InvalidParameter(where, content, "a string, null, or a list of text parts")


def _part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        raise InvalidParameter(where, part, 'a part such as {"type": "text", "text": "…"}')
    if kind not in _TEXT_FIELDS:
        raise UnsupportedParameter(f"{where}: parts of type {kind!r} are not honoured; only text is", param=where)
    text = part.get(_TEXT_FIELDS[kind])
    if not isinstance(text, str):
        raise InvalidParameter(f"{where}.{_TEXT_FIELDS[kind]}", text, "a string")
    return text


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair; no tokenizer and no database takes it
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _check_answerable(messages: Sequence[Message]) -> None:
    if not messages:
        raise InvalidParameter("messages", [], "at least one message")
    last = next((message for message in reversed(messages) if message.role != "system"), None)
    if last is None or last.role == "assistant":
        role = last.role if last else "system"
        raise InvalidParameter("messages", f"… {role}", "a list that ends with a user message, not to be continued")
    if last.role == "user" and not last.content.strip():
        raise InvalidParameter("messages", last.content, "a last user message that is not empty")


def conversation(messages: Sequence[Message], traits: Traits = Traits()) -> tuple[Message, ...]:
    """Return what the chat template is shown.

    All system messages become one at the front, or, where the template has no system role, the beginning of the first
    user message. Consecutive messages of one role are joined by a blank line. Where the template has no tool role, tool
    results are dropped together with the empty assistant message that called for them. An assistant message that opens
    the conversation gets an empty user message before it where the template insists on alternation.
    """
    spoken = [message for message in messages if message.role != "system"]
    kept = spoken if traits.tool else _without_tools(spoken)
    turns = [Message(role, _joined(list(group))) for role, group in groupby(kept, key=lambda message: message.role)]
    if turns and turns[0].role == "assistant" and not traits.leading_assistant:
        turns.insert(0, Message("user", ""))
    system = _joined([message for message in messages if message.role == "system"])
    return _with_system(turns, system, traits) if system.strip() else tuple(turns)


def _without_tools(spoken: Sequence[Message]) -> list[Message]:
    following = [*(message.role for message in spoken[1:]), ""]
    return [
        message
        for message, after in zip(spoken, following, strict=True)
        if message.role != "tool" and (after != "tool" or message.role == "user" or message.content.strip())
    ]


def _joined(messages: Sequence[Message]) -> str:
    texts = [message.content for message in messages]
    return texts[0] if len(texts) == 1 else "\n\n".join(text for text in texts if text.strip())


def _with_system(turns: list[Message], system: str, traits: Traits) -> tuple[Message, ...]:
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    if traits.system or first is None:
        return (Message("system", system), *turns)
    folded = _joined([Message("system", system), turns[first]])
    return (*turns[:first], Message("user", folded), *turns[first + 1 :])
