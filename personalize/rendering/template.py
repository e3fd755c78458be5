"""A tokenizer's chat template, and what it can and cannot show."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from personalize.errors import TemplateError
from personalize.rendering.messages import Traits
from personalize.types import Message

# Words that no template writes by itself, so finding one again means that the message was shown.
_SYSTEM, _USER, _ASSISTANT, _TOOL = "Sysprobe", "Userprobe", "Assistantprobe", "Toolprobe"


class ChatTemplate:
    """Renders messages with thinking off.

    Raises:
        TemplateError: the tokenizer has no chat template, or one that cannot show a single user message.
    """

    def __init__(self, tokenizer: Any):
        from jinja2 import TemplateError as JinjaError  # comes with [local]; importing this module does not need it

        self._refusals = (JinjaError, TypeError, ValueError, LookupError, AttributeError)
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise TemplateError("the tokenizer has no chat template; a chat model is needed")
        self.source: str = tokenizer.get_chat_template()
        if _USER not in self.apply([Message("user", _USER)]):
            raise TemplateError("the chat template does not show a user message")

    def apply(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Return the rendered text.

        Raises:
            TemplateError: the template refuses these messages.
        """
        shown = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._tokenizer.apply_chat_template(
                shown, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
            )
        except self._refusals as error:
            raise TemplateError(f"the chat template refuses these messages: {error}", param="messages") from error

    @cached_property
    def traits(self) -> Traits:
        """What it can show; a role that is dropped silently counts as refused."""
        system, user = Message("system", _SYSTEM), Message("user", _USER)
        reply, tool = Message("assistant", _ASSISTANT), Message("tool", _TOOL)
        return Traits(
            system=self._shows([system, user], _SYSTEM),
            tool=self._shows([user, Message("assistant", ""), tool, reply, user], _TOOL),
            leading_assistant=self._shows([reply, user], _ASSISTANT),
        )

    @cached_property
    def before_reply(self) -> str:
        """What stands between a last user message and the reply."""
        return self.apply([Message("user", _USER)]).rpartition(_USER)[2]

    @cached_property
    def closing(self) -> str:
        """What follows the assistant's text when its turn is over; empty where the template cannot show that."""
        try:
            shown = self.apply([Message("user", _USER), Message("assistant", _ASSISTANT)], add_generation_prompt=False)
        except TemplateError:
            return ""
        return shown.rpartition(_ASSISTANT)[2]

    @cached_property
    def reply_lead(self) -> str:
        """What stands between the generation prompt and the assistant's text; mostly nothing, or a space."""
        try:
            shown = self.apply([Message("user", _USER), Message("assistant", _ASSISTANT)], add_generation_prompt=False)
        except TemplateError:
            return ""
        after = shown.partition(_USER)[2]
        begun = after.removeprefix(self.before_reply) if after.startswith(self.before_reply) else ""
        return begun.partition(_ASSISTANT)[0] if _ASSISTANT in begun else ""

    def _shows(self, messages: Sequence[Message], word: str) -> bool:
        try:
            return word in self.apply(messages)
        except TemplateError:
            return False
