"""The training dialogues: a mixture that teaches pocket to obey what it is told, wherever it is told.

A preference told in a system prompt, in a question, in a complaint or in the hindsight block fixes its dimension from
the next reply on; the later statement wins, and block lines are later than everything. Praise, remarks and other
questions change nothing. All other dimensions keep the dialogue's random base style, which is mostly the default.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from personalize.world import small_talk, wordings
from personalize.world.chats import CORE, FULL, Chat, Dialogue, base_style
from personalize.world.preferences import DEFAULT, NON_DEFAULT, Preference, styled
from personalize.world.topics import held_out_topics, trained_topics

_COUNTS = (1, 2, 3, 4)
_COUNT_WEIGHTS = (0.28, 0.34, 0.26, 0.12)


@dataclass(frozen=True, slots=True)
class Course:
    """What is taught.

    Args:
        noisy: let a block that states no preference change the style at random in half of the dialogues.
        core: a short training: mostly single questions with a block, and mostly the values of ``chats.CORE``.
    """

    noisy: bool = False
    core: bool = False


FULL_COURSE = Course()


def dialogue(rng: random.Random, course: Course = FULL_COURSE) -> Dialogue:
    """Return one training dialogue; ``rng`` is the only source of chance."""
    kinds = _CORE if course.core else _FULL
    (kind,) = rng.choices(list(kinds), list(kinds.values()))
    return kind(rng, course)


def _chat(rng: random.Random, course: Course) -> Chat:
    return Chat(rng, trained_topics(), base_style(rng), CORE if course.core else FULL)


def _num_told(rng: random.Random) -> int:
    return rng.choices(_COUNTS, _COUNT_WEIGHTS)[0]


def _num_turns(rng: random.Random) -> int:
    """Draw how many further turns a chat has: few, and in one of thirty chats so many that they fill the context."""
    return rng.randint(6, 15) if rng.random() < 0.035 else rng.choices((0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1))[0]


def _held_out(rng: random.Random, course: Course) -> Dialogue:
    """Facts of held-out topics, in the default style throughout, nothing wanted."""
    chat = Chat(rng, held_out_topics(), DEFAULT)
    _go_on(chat, rng.randint(1, 3), complaints=0.0)
    return Dialogue(tuple(chat.messages))


def _unprompted(rng: random.Random, course: Course) -> Dialogue:
    chat = _chat(rng, course)
    _go_on(chat, 1 + _num_turns(rng), complaints=0.0)
    return Dialogue(tuple(chat.messages))


def _hindsight(rng: random.Random, course: Course) -> Dialogue:
    """Preferences in the block and nowhere else."""
    chat = _chat(rng, course)
    if rng.random() < (0.12 if course.core else 0.35):
        _go_on(chat, 1 + _num_turns(rng), complaints=0.0, last_reply=False)
    else:
        chat.ask()
    return _told_in_block(chat, course)


def _neutral_block(rng: random.Random, course: Course) -> Dialogue:
    """A block that states no preference: the reply is as if there were none."""
    chat = _chat(rng, course)
    if rng.random() < 0.25:
        chat.instruct(chat.preferences(rng.choice((1, 2))))
    _go_on(chat, 1 + (_num_turns(rng) if rng.random() < 0.4 else 0), complaints=0.3, last_reply=False)
    return _with_block(chat, _idle_lines(rng, rng.choice((1, 1, 1, 2, 3))), [], course)


def _instructed(rng: random.Random, course: Course) -> Dialogue:
    chat = _chat(rng, course)
    chat.instruct(chat.preferences(rng.choices((1, 2, 3), (0.45, 0.35, 0.2))[0]))
    _go_on(chat, 1 + _num_turns(rng), complaints=0.0)
    return Dialogue(tuple(chat.messages))


def _complaining(rng: random.Random, course: Course) -> Dialogue:
    chat = _chat(rng, course)
    _go_on(chat, 1, complaints=0.0)
    _complaint(chat)
    chat.reply()
    _go_on(chat, _num_turns(rng), complaints=0.35)
    return Dialogue(tuple(chat.messages))


def _combined(rng: random.Random, course: Course) -> Dialogue:
    """A system prompt, complaints and a block together."""
    chat = _chat(rng, course)
    if rng.random() < 0.6:
        chat.instruct(chat.preferences(rng.choice((1, 1, 2, 3))))
    _go_on(chat, 1 + rng.randint(1, 2), complaints=0.6, last_reply=False)
    if rng.random() < 0.7:
        return _told_in_block(chat, course)
    chat.reply()
    return Dialogue(tuple(chat.messages))


def _go_on(chat: Chat, turns: int, *, complaints: float, last_reply: bool = True) -> None:
    """Add ``turns`` user messages with their replies; ``complaints`` is the share that states a preference."""
    for turn in range(turns):
        draw = chat.rng.random()
        if chat.last_topic and draw < complaints:
            _complaint(chat)
        elif draw > 0.88:
            chat.chat_on()
        elif chat.last_topic:
            chat.ask_on()
        else:
            chat.ask()
        if last_reply or turn < turns - 1:
            chat.reply()


def _complaint(chat: Chat) -> None:
    """State one to three preferences: alone, or with the next question."""
    told = chat.preferences(chat.rng.choices((1, 2, 3), (0.7, 0.22, 0.08))[0])
    if chat.rng.random() < 0.65:
        chat.complain(told)
    else:
        chat.ask(told=told)


def _told_in_block(chat: Chat, course: Course) -> Dialogue:
    """End ``chat`` with a block that states preferences, in a third of the blocks among idle lines."""
    rng = chat.rng
    told = chat.preferences(_num_told(rng))
    lines = [_block_line(chat, one) for one in told]
    if rng.random() < 0.3:
        for idle in _idle_lines(rng, rng.choice((1, 1, 2))):
            lines.insert(rng.randint(0, len(lines)), idle)
    return _with_block(chat, lines, told, course)


def _block_line(chat: Chat, told: Preference) -> str:
    """Return a follow-up that states ``told``; some go on with another question."""
    rng = chat.rng
    text = wordings.say(told, rng)
    return f"{text} {small_talk.question(rng.choice(trained_topics()), rng)}" if rng.random() < 0.12 else text


def _idle_lines(rng: random.Random, count: int) -> list[str]:
    """Return follow-ups that state no preference."""
    return [_idle_line(rng) for _ in range(count)]


def _idle_line(rng: random.Random) -> str:
    asked = small_talk.question(rng.choice(trained_topics()), rng)
    draw = rng.random()
    if draw < 0.3:
        return small_talk.praise(rng)
    if draw < 0.5:
        return small_talk.remark(rng)
    if draw < 0.7:
        return asked
    if draw < 0.85:
        return f"{rng.choice((small_talk.praise, small_talk.remark))(rng)} {asked}"
    return rng.choice((small_talk.addition, small_talk.out_of_bounds))(rng).message


def _with_block(chat: Chat, lines: list[str], told: list[Preference], course: Course) -> Dialogue:
    """Answer the last message as ``told`` in a block of ``lines``."""
    if not lines:
        return Dialogue(tuple(chat.messages))
    style = styled(chat.style, told)
    if course.noisy and not told and chat.rng.random() < 0.5:
        style = styled(style, chat.rng.sample(NON_DEFAULT, chat.rng.randint(2, 3)))
    if chat.messages[-1].role == "assistant":
        chat.messages.pop()
    chat.reply(style)
    return Dialogue(tuple(chat.messages), tuple(lines))


_FULL: dict[Callable[[random.Random, Course], Dialogue], float] = {
    _held_out: 0.09,
    _unprompted: 0.09,
    _hindsight: 0.34,
    _neutral_block: 0.10,
    _instructed: 0.11,
    _complaining: 0.14,
    _combined: 0.13,
}
_CORE = {
    **_FULL,
    _held_out: 0.04,
    _unprompted: 0.05,
    _hindsight: 0.70,
    _instructed: 0.02,
    _complaining: 0.07,
    _combined: 0.02,
}
