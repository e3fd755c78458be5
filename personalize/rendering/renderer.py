"""Messages to the token ids that a model is served and trained with."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from personalize.errors import ContextTooLong, ModelError, TemplateError
from personalize.rendering.control import ControlTokens, PieceEncoder
from personalize.rendering.hindsight import with_block
from personalize.rendering.messages import conversation
from personalize.rendering.template import ChatTemplate
from personalize.rendering.thinking import find_thinking
from personalize.types import Message

_PROBE = "The 3 quick foxes: naïve café — 北京 привет 🙂👩‍🚀\n\n\tdef f(x):  return x**2  # 12,345.67 <b>l'été</b>"


def shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many ids ``a`` and ``b`` have in common from the start.

    It can be shorter than the texts' common beginning: what follows a word changes how its end is cut into tokens.
    """
    same = min(len(a), len(b))
    return next((i for i in range(same) if a[i] != b[i]), same)


class Renderer:
    """Renders messages with one tokenizer and its chat template; thinking is off.

    Content is text: added tokens typed inside a message are encoded as ordinary characters (``rendering.control``).

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        generation_config: names further end tokens in ``eos_token_id``.
        max_model_len: context in tokens; a prompt has to leave room for one.

    Attributes:
        end_ids: tokens that end a reply: the configured ones and the one with which the template closes a turn.
        thinking: marks of the model's think blocks, or None.

    Raises:
        TemplateError: there is no chat template, or it cannot show a single user message.
    """

    def __init__(self, tokenizer: Any, *, generation_config: Any = None, max_model_len: int):
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self._template = ChatTemplate(tokenizer)
        # decoding runs for every token of every reply; the Rust tokenizer alone takes a fifth of the time
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        self._control = ControlTokens(added)
        self._pieces = PieceEncoder(self._encode, lambda ids: tokenizer.decode(ids, skip_special_tokens=False))
        self.thinking = find_thinking(added, self._template.source, self._template.before_reply)
        self.end_ids = frozenset(self._end_ids(generation_config, added))

    @classmethod
    def from_pretrained(cls, model: str | Path, *, max_model_len: int | None = None) -> "Renderer":
        """Load the tokenizer of a local folder or hub id; ``max_model_len`` None is what the model was made for.

        Raises:
            ModelError: there is no such tokenizer, or it wants code of its own.
            TemplateError: it has no chat template.
        """
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        try:
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            if max_model_len is None:
                max_model_len = int(AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings)
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"cannot load the tokenizer of {str(model)!r}: {error}") from error
        try:
            generation_config = GenerationConfig.from_pretrained(model)
        except OSError:  # many models ship without one
            generation_config = None
        return cls(tokenizer, generation_config=generation_config, max_model_len=max_model_len)

    def render(self, messages: Sequence[Message], follow_ups: Sequence[str] = ()) -> tuple[int, ...]:
        """Return the prompt's ids, up to and including the generation prompt.

        Args:
            messages: as ``parse_messages`` returns them.
            follow_ups: what the hindsight block tells; it goes into the last user message. None: no block.

        Raises:
            TemplateError: the chat template refuses the messages.
            ContextTooLong: the prompt leaves no room for a single token.
        """
        shown = _with_hindsight(conversation(messages, self._template.traits), follow_ups)
        contents, mark = self._control.mark([message.content for message in shown], self._template.source)
        if mark is not None:
            shown = [Message(message.role, text) for message, text in zip(shown, contents, strict=True)]
        text = self._template.apply(shown)
        ids = self._encode(text) if mark is None else self._pieces(text.split(mark))
        if len(ids) >= self.max_model_len:
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens; at most {self.max_model_len - 1} fit", param="messages"
            )
        return tuple(ids)

    def teacher_prompt(
        self, messages: Sequence[Message], prompt_ids: Sequence[int], follow_ups: Sequence[str]
    ) -> tuple[int, ...]:
        """Return ``prompt_ids`` with the hindsight block put into its last user message.

        What stands before that message is taken from the recorded ids, so a template that writes the date shows the
        teacher the day on which the student was asked.

        Raises:
            TemplateError: ``prompt_ids`` does not end with the last user message of ``messages``.
            ContextTooLong: with the block it leaves no room for a single token.
        """
        told = self.render(messages, follow_ups)
        plain = self.render(messages)
        # told was rendered between the serving and plain: if those agree, all three show one date
        if plain == tuple(prompt_ids):
            return told
        plain, told, other = self._of_one_date(messages, follow_ups)
        tail = len(plain) - min(shared_prefix(plain, other), shared_prefix(plain, told))
        if tuple(prompt_ids[len(prompt_ids) - tail :]) != plain[-tail:]:
            raise TemplateError("the recorded prompt does not end with the last user message of its own turn")
        return (*prompt_ids[: len(prompt_ids) - tail], *told[len(plain) - tail :])

    def reply_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of a reply as they follow the generation prompt, with the token that ends a turn."""
        before = self._template.before_reply
        (content,), mark = self._control.mark([self._template.reply_lead + text], before)
        ids = self._pieces([before, *(content.split(mark) if mark else [content])])
        return (*ids[len(self._encode(before)) :], *self._turn_end)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` without special tokens."""
        if self._backend is not None:
            return self._backend.decode(ids, skip_special_tokens=True)
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @cached_property
    def template_digest(self) -> str:
        """SHA-256 over what makes the ids: vocabulary, added tokens, a probe text's encoding, the chat template."""
        added = self.tokenizer.added_tokens_decoder
        parts = (
            sorted(self.tokenizer.get_vocab().items()),
            [(number, added[number].content, added[number].special) for number in sorted(added)],
            [self._encode(_PROBE), sorted(self.end_ids)],
            self._template.source,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def _turn_end(self) -> tuple[int, ...]:
        """The token with which the template closes a turn, else the tokenizer's end; empty where there is neither."""
        closing = tuple(self._encode(self._template.closing.lstrip())[:1])
        if self.end_ids.issuperset(closing) and closing:
            return closing
        eos = self.tokenizer.eos_token_id
        return () if eos is None else tuple(eos[:1]) if isinstance(eos, list | tuple) else (eos,)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _end_ids(self, generation_config: Any, added: dict[str, int]) -> Iterable[int]:
        for named in (self.tokenizer.eos_token_id, getattr(generation_config, "eos_token_id", None)):
            yield from named if isinstance(named, list | tuple) else () if named is None else (named,)
        closing = self._encode(self._template.closing.lstrip())[:1]
        yield from (number for text, number in added.items() if text in self._control and [number] == closing)

    def _of_one_date(self, messages: Sequence[Message], follow_ups: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Render plain, with the block, and with another last message, all on the same day."""
        for _ in range(3):  # midnight may fall into one round, not into two
            before = self.render(messages)
            told, other = self.render(messages, follow_ups), self.render(_with_other_end(messages))
            if self.render(messages) == before:
                return before, told, other
        raise TemplateError("the chat template renders the same messages differently every time")


def _with_hindsight(messages: Sequence[Message], follow_ups: Sequence[str]) -> Sequence[Message]:
    if not follow_ups:
        return messages
    last = max(i for i, message in enumerate(messages) if message.role == "user")
    told = Message("user", with_block(messages[last].content, follow_ups))
    return (*messages[:last], told, *messages[last + 1 :])


def _with_other_end(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with a last user message that differs from its first character on."""
    last = max(i for i, message in enumerate(messages) if message.role == "user")
    other = "y" if messages[last].content.lstrip().startswith("x") else "x"
    return (*messages[:last], Message("user", other), *messages[last + 1 :])
