"""Canonical text of a conversation, and the keyed hashes under which a turn is found again.

Clients change what they send back: line ends, Unicode form, outer white space, system prompts. None of that makes
another conversation. The hashes are keyed per user, so they say nothing once that key is destroyed, and every hashed
field carries a tag and its length, so two conversations never run into one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

from personalize.types import Message, visible_text

_MAX_MARKS = 30
"""On one letter; the limit of the Stream-Safe Text Format, UAX #15."""
_PREFIX, _PROMPT, _REPLY, _RECORDED = b"prefix", b"prompt", b"reply", b"recorded"


def canonical(message: Message) -> str:
    """Return the role, a newline, and the text: visible only, NFC, ``\\n``, without outer white space."""
    return f"{message.role}\n{canonical_text(message)}"


def canonical_text(message: Message) -> str:
    text = message.content.replace("\r\n", "\n").replace("\r", "\n")
    if message.role == "assistant":
        text = visible_text(text)
    return _composed(text).strip()


def _composed(text: str) -> str:
    """Return ``text`` in NFC; as it is where it piles up marks as no language does.

    Marks are put in order by insertion, so the time grows with the square of a pile, and no other thread gets a turn.
    """
    if text.isascii():
        return text
    pile = 0
    for character in text if len(text) > _MAX_MARKS else "":
        pile = pile + 1 if unicodedata.combining(character) else 0
        if pile > _MAX_MARKS:
            return text
    return unicodedata.normalize("NFC", text)


def prefix_key(key: bytes, messages: Sequence[Message]) -> str:
    """Return key 1 of a turn: over its messages *and* its reply, without system messages; 32 hex digits.

    Args:
        key: the user's secret.
        messages: the conversation, ending with the assistant's reply.
    """
    return _keyed(key, _PREFIX, _spoken(messages))


def prompt_key(key: bytes, messages: Sequence[Message]) -> str:
    """Return the key of what a turn answers: its messages before the reply, without system messages."""
    return _keyed(key, _PROMPT, _spoken(messages))


def reply_key(key: bytes, text: str) -> str:
    """Return key 2 of a turn: over its reply alone."""
    return _keyed(key, _REPLY, [canonical(Message("assistant", text))])


def recorded_id(key: bytes, base_digest: str, messages: Sequence[Message]) -> str:
    """Return the id of a turn that was served elsewhere: the same conversation gives the same id; 32 hex digits.

    Args:
        key: the user's secret.
        base_digest: the base that is to learn from it; another base may learn from it once more.
        messages: the conversation, ending with the assistant's reply.
    """
    return _keyed(key, _RECORDED, [base_digest, *_spoken(messages)])


def _spoken(messages: Sequence[Message]) -> Iterable[str]:
    return (canonical(message) for message in messages if message.role != "system")


def _keyed(key: bytes, tag: bytes, texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(key=key[: hashlib.blake2b.MAX_KEY_SIZE], person=tag, digest_size=16)
    for text in texts:
        field = text.encode("utf-8", "surrogatepass")
        digest.update(len(field).to_bytes(8, "big") + field)
    return digest.hexdigest()
