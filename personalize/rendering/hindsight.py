"""The hindsight block: what the user said next, shown with the prompt it follows.

The block is appended to the *content of the last user message*: no new turn, no new role, so every
chat template can carry it and taking it away gives back the plain prompt, id for id. Its wording is
neutral on purpose: a text that presupposes failure is wrong after praise.

Source: arXiv 2603.12273, table 1 (structure; the words are ours).
"""

from collections.abc import Sequence

HEADER = "=== hindsight ==="
NOTE = "[Later the user writes the lines below. Let them guide the answer to the message above.]"


def with_block(content: str, follow_ups: Sequence[str]) -> str:
    """Return ``content`` followed by the hindsight block, or ``content`` itself for no follow-ups.

    Args:
        content: the text of the last user message of x.
        follow_ups: what the user wrote later, oldest first; outer whitespace is removed.
    """
    told = [text.strip() for text in follow_ups if text.strip()]
    if not told:
        return content
    return "\n".join([f"{content}\n\n{HEADER}", NOTE, *told])
