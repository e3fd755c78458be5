"""Think blocks: which marks a model puts around its thoughts."""

from collections.abc import Mapping
from dataclasses import dataclass

_MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thought>", "</thought>"),
)


@dataclass(frozen=True, slots=True)
class Thinking:
    """How thoughts are told from the visible text.

    Attributes:
        opening: text of the mark that begins a thought.
        closing: text of the mark that ends it.
        open_id: its token; None where the mark is written in several tokens and has to be read in the text.
        close_id: likewise; both are tokens or neither is.
        opened: the generation prompt itself begins a thought, so a reply starts inside one.
    """

    opening: str
    closing: str
    open_id: int | None = None
    close_id: int | None = None
    opened: bool = False

    @property
    def in_text(self) -> bool:
        return self.open_id is None


def find_thinking(added_ids: Mapping[str, int], template: str, before_reply: str) -> Thinking | None:
    """Return the marks that the tokenizer has as tokens, or that its template writes; None for neither.

    Args:
        added_ids: id of every added token.
        template: source of the chat template.
        before_reply: what the template writes between a user message and the reply.
    """
    for opening, closing in _MARKS:
        opened = before_reply.rfind(opening) > before_reply.rfind(closing)
        if opening in added_ids and closing in added_ids:
            return Thinking(opening, closing, added_ids[opening], added_ids[closing], opened)
        if opening in template and closing in template:
            return Thinking(opening, closing, opened=opened)
    return None
