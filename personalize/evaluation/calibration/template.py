"""Does the chat template carry the hindsight block, and is there room for it?"""

from personalize.errors import ContextTooLong
from personalize.evaluation.calibration.questions import QUESTIONS
from personalize.evaluation.calibration.wishes import IDLE, WISHES
from personalize.rendering.hindsight import with_block
from personalize.rendering.renderer import Renderer
from personalize.types import Message

NUM_PROMPTS = 8


def room(renderer: Renderer) -> int:
    """Return how many tokens the context leaves for a reply beside a block of one follow-up; 0 for none."""
    sayings = [text for wish in WISHES for text in wish.said] + [text for texts in IDLE.values() for text in texts]
    longest = max(sayings, key=len)
    try:
        prompts = [renderer.render((Message("user", text),), (longest,)) for text in QUESTIONS]
    except ContextTooLong:
        return 0
    return renderer.max_model_len - max(map(len, prompts))


def block_removed(renderer: Renderer) -> float:
    """Return the share of teacher prompts that are the plain prompt again when the block's text is taken away.

    White space is not compared: templates and tokenizers trim it. Both prompts must also end with the same token, the
    last of the generation prompt, or the reply would not begin at the same place.

    Raises:
        ContextTooLong: a teacher prompt does not fit; see ``room``.
        TemplateError: the template refuses a user message.
    """
    turns = [(QUESTIONS[i], WISHES[i % len(WISHES)].said[0]) for i in range(NUM_PROMPTS)]
    return sum(_comes_away(renderer, question, follow_up) for question, follow_up in turns) / len(turns)


def _comes_away(renderer: Renderer, question: str, follow_up: str) -> bool:
    messages = (Message("user", question),)
    plain = renderer.render(messages)
    told = renderer.teacher_prompt(messages, plain, (follow_up,))
    before, block, after = _squeezed(renderer.decode(told)).partition(_squeezed(with_block("", (follow_up,))))
    return (
        renderer.teacher_prompt(messages, plain, ()) == plain
        and bool(block)
        and before + after == _squeezed(renderer.decode(plain))
        and told[-1] == plain[-1]
    )


def _squeezed(text: str) -> str:
    return "".join(text.split())
