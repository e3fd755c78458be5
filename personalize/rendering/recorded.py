"""A reply of which only the text is known, as the record that serving it would have left."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from personalize.errors import TemplateError
from personalize.rendering.detokenizer import Detokenizer, Vocabulary
from personalize.types import Completion, Message


class Reteller(Vocabulary, Protocol):
    """What a renderer must be able to do for it."""

    def render(self, messages: Sequence[Message], follow_ups: Sequence[str] = ()) -> tuple[int, ...]: ...

    def reply_ids(self, text: str) -> tuple[int, ...]: ...


def as_sampled(renderer: Reteller, text: str, *, ended: bool = True) -> Completion:
    """Return the reply in the ids in which the model would have written it, every visible token trained.

    The ids are off-policy: nobody sampled them from this model. Outer white space is dropped.

    Args:
        ended: the reply came to its own end; False leaves out the end token, so that none is trained.

    Raises:
        TemplateError: there are no visible words in it; also where the model's prompt always opens a thought.
    """
    words = Detokenizer(renderer)
    for token in renderer.reply_ids(text.strip()):
        if words.stopped or (not ended and token in renderer.end_ids):
            break
        words.feed(token)
    completion = words.finish("stop" if words.stopped else "length")[1]
    if not completion.text.strip():
        raise TemplateError("the recorded reply has no visible words in this model's form of a reply")
    return replace(completion, finish_reason="stop" if ended else "cancel")
