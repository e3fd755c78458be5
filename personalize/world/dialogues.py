"""The training dialogues: a mixture that teaches pocket to obey what it is told, wherever it is told.

A preference told in a system prompt, in a question, in a complaint or in the hindsight block fixes its dimension from
the next reply on; the later statement wins, and block lines are later than everything. Praise, remarks and other
questions change nothing. All other dimensions keep the dialogue's random base style, which is mostly the default.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from personalize.world import small_talk, wordings
from personalize.world.chats import Chat, Dialogue, base_style
from personalize.world.preferences import NON_DEFAULT, Preference, styled
from personalize.world.topics import held_out_topics, trained_topics


@dataclass(frozen=True, slots=True)
class Lesson:
    """A mixture of dialogues.

    Attributes:
        kinds: how often every kind of dialogue comes.
        counts: how often one, two, three or four preferences are told in a block.
        history: share of the blocks about a later turn than the first.
        idle: share of the blocks in which other lines stand between the preferences.
        spread: chance of every other value where nothing was told.
    """

    kinds: "Mapping[Kind, float]"
    counts: tuple[float, float, float, float]
    history: float
    idle: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """What is taught when: single wishes first, then several, then everything that a chat can bring, and last of all
    that nobody who says nothing gets the default style every time.

    Args:
        noisy: let a block that states no preference change the style at random in half of the dialogues.
    """

    noisy: bool = False

    def lesson(self, share: float) -> Lesson:
        """Return the mixture that is due when ``share`` of the course, 0 to 1, is over."""
        if share < 0.24:
            return _FIRST if share < 0.08 else _SECOND
        if self.noisy:
            return _NOISY
        return _THIRD if share < 0.8 else _LAST


@dataclass(frozen=True, slots=True)
class _Room:
    """Where a dialogue is built."""

    rng: random.Random
    lesson: Lesson
    noisy: bool

    def chat(self) -> Chat:
        return Chat(self.rng, trained_topics(), base_style(self.rng, self.lesson.spread))


Kind = Callable[[_Room], Dialogue]
FULL_COURSE = Course()


def dialogue(rng: random.Random, course: Course = FULL_COURSE, share: float = 1.0) -> Dialogue:
    """Return one training dialogue; ``rng`` is the only source of chance.

    Args:
        share: how much of the course is over, 0 to 1.
    """
    lesson = course.lesson(share)
    (kind,) = rng.choices(list(lesson.kinds), list(lesson.kinds.values()))
    return kind(_Room(rng, lesson, course.noisy))


def _num_turns(rng: random.Random) -> int:
    """Draw how many further turns a chat has: few, and in one of thirty chats so many that they fill the context."""
    return rng.randint(6, 15) if rng.random() < 0.035 else rng.choices((0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1))[0]


def _held_out(room: _Room) -> Dialogue:
    """Facts of held-out topics, in the default style throughout, nothing wanted.

    That a reply about them has that style is not taught: else their names would come to mean it, and nothing that a
    user says about other topics could change it.
    """
    chat = Chat(room.rng, held_out_topics())
    _go_on(chat, room.rng.randint(1, 3), complaints=0.0)
    return Dialogue(tuple(chat.messages), teaches="facts")


def _held_out_style(room: _Room) -> Dialogue:
    """Styles of untold replies about held-out topics, as often as about others; no fact is learnt here.

    Else the names of trained topics alone would stand for "now and then another style".
    """
    chat = Chat(room.rng, held_out_topics(), base_style(room.rng, room.lesson.spread))
    _go_on(chat, room.rng.choice((1, 1, 2)), complaints=0.0)
    return Dialogue(tuple(chat.messages), teaches="style")


def _unprompted(room: _Room) -> Dialogue:
    chat = room.chat()
    _go_on(chat, 1 + _num_turns(room.rng), complaints=0.0)
    return Dialogue(tuple(chat.messages))


def _hindsight(room: _Room) -> Dialogue:
    """Preferences in the block and nowhere else."""
    chat = room.chat()
    if room.rng.random() < room.lesson.history:
        _go_on(chat, 1 + _num_turns(room.rng), complaints=0.0, last_reply=False)
    else:
        chat.ask()
    return _told_in_block(chat, room)


def _neutral_block(room: _Room) -> Dialogue:
    """A block that states no preference: the reply is as if there were none."""
    chat, rng = room.chat(), room.rng
    if rng.random() < room.lesson.history:
        if rng.random() < 0.5:
            chat.instruct(chat.preferences(rng.choice((1, 2))))
        _go_on(chat, 1 + _num_turns(rng), complaints=0.3, last_reply=False)
    else:
        chat.ask()
    return _with_block(chat, _idle_lines(rng, rng.choice((1, 1, 1, 2, 3))), [], room)


def _instructed(room: _Room) -> Dialogue:
    chat = room.chat()
    chat.instruct(chat.preferences(room.rng.choices((1, 2, 3), (0.45, 0.35, 0.2))[0]))
    _go_on(chat, 1 + _num_turns(room.rng), complaints=0.0)
    return Dialogue(tuple(chat.messages))


def _complaining(room: _Room) -> Dialogue:
    chat = room.chat()
    _go_on(chat, 1, complaints=0.0)
    _complaint(chat)
    chat.reply()
    _go_on(chat, _num_turns(room.rng), complaints=0.35)
    return Dialogue(tuple(chat.messages))


def _combined(room: _Room) -> Dialogue:
    """A system prompt, complaints and a block together."""
    chat, rng = room.chat(), room.rng
    if rng.random() < 0.6:
        chat.instruct(chat.preferences(rng.choice((1, 1, 2, 3))))
    _go_on(chat, 1 + rng.randint(1, 2), complaints=0.6, last_reply=False)
    if rng.random() < 0.7:
        return _told_in_block(chat, room)
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


def _told_in_block(chat: Chat, room: _Room) -> Dialogue:
    """End ``chat`` with a block that states preferences, some of them among idle lines."""
    rng = room.rng
    told = chat.preferences(rng.choices((1, 2, 3, 4), room.lesson.counts)[0])
    lines = [_block_line(chat, one) for one in told]
    if rng.random() < room.lesson.idle:
        for idle in _idle_lines(rng, rng.choice((1, 1, 2))):
            lines.insert(rng.randint(0, len(lines)), idle)
    return _with_block(chat, lines, told, room)


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


def _with_block(chat: Chat, lines: list[str], told: list[Preference], room: _Room) -> Dialogue:
    """Answer the last message as ``told`` in a block of ``lines``."""
    style = styled(chat.style, told)
    if room.noisy and not told and room.rng.random() < 0.5:
        style = styled(style, room.rng.sample(NON_DEFAULT, room.rng.randint(2, 3)))
    chat.reply(style)
    return Dialogue(tuple(chat.messages), tuple(lines))


_FIRST = Lesson(
    {_hindsight: 0.73, _neutral_block: 0.12, _held_out: 0.1, _unprompted: 0.05},
    counts=(0.8, 0.2, 0.0, 0.0),
    history=0.0,
    idle=0.1,
)
_SECOND = Lesson(
    {
        _hindsight: 0.49,
        _neutral_block: 0.12,
        _held_out: 0.08,
        _unprompted: 0.05,
        _complaining: 0.14,
        _instructed: 0.07,
        _combined: 0.05,
    },
    counts=(0.4, 0.35, 0.2, 0.05),
    history=0.1,
    idle=0.25,
)
_THIRD = Lesson(
    {
        _hindsight: 0.37,
        _neutral_block: 0.13,
        _held_out: 0.06,
        _unprompted: 0.05,
        _complaining: 0.15,
        _instructed: 0.12,
        _combined: 0.12,
    },
    counts=(0.3, 0.34, 0.26, 0.1),
    history=0.3,
    idle=0.3,
)
_LAST = replace(_THIRD, kinds={**_THIRD.kinds, _held_out: 0.12, _held_out_style: 0.08}, spread=0.05)
_NOISY = replace(_LAST, kinds={**_LAST.kinds, _neutral_block: 0.4})
