"""Every sentence in which a preference is told: trained ones from frames and phrases, and held-out ones.

Trained wordings recombine a few frames with the phrases of `phrases`; a held-out wording is in no training dialogue.
"""

import random
from functools import cache

from personalize.world.phrases import PHRASES
from personalize.world.preferences import Preference

_VERB_FRAMES = (
    "{}.",
    "Please {}.",
    "{}, please.",
    "Next time {}.",
    "Next time, please {}.",
    "From now on, {}.",
    "Could you {}?",
    "Could you {}, please?",
    "Can you {}?",
    "I want you to {}.",
    "I would like you to {}.",
    "You should {}.",
)
_NOUN_FRAMES = (
    "{}, please.",
    "I want {}.",
    "I prefer {}.",
    "I like {}.",
    "I would like {}.",
    "Next time {}, please.",
    "From now on, {}.",
    "Could I have {}?",
    "Please, {}.",
    "{} would be better.",
    "{} would be enough.",
    "{} would be easier for me.",
    "Next time only {}.",
    "I miss {}.",
    "Your answers need {}.",
    "{} for me, please.",
)
_COMPLAINT_FRAMES = ("{}", "{}", "Hmm. {}", "Sorry. {}", "For me: {}")
_SYSTEM_VERB_FRAMES = ("{}.", "Always {}.", "Please {}.", "Remember to {}.", "The user wants you to {}.")
_SYSTEM_NOUN_FRAMES = (
    "The user likes {}.",
    "The user wants {}.",
    "The user prefers {}.",
    "This user asked for {}.",
    "Style: {}.",
)
_PREAMBLES = ("", "", "You are Pocket. ", "You are a helpful assistant. ")


def _fill(frame: str, phrase: str) -> str:
    sentence = frame.format(phrase)
    return sentence[:1].upper() + sentence[1:]


def _all(frames: tuple[str, ...], phrases: tuple[str, ...]) -> list[str]:
    return [_fill(frame, phrase) for frame in dict.fromkeys(frames) for phrase in phrases]


def held_out(preference: Preference) -> tuple[str, ...]:
    """Return the wordings that only simulated users and measurements speak."""
    return PHRASES[preference].held_out


@cache
def wishes(preference: Preference) -> tuple[str, ...]:
    """Return the trained wordings that say what is wanted."""
    phrases = PHRASES[preference]
    sentences = _all(_VERB_FRAMES, phrases.verbs) + _all(_NOUN_FRAMES, phrases.nouns)
    return tuple(sentence for sentence in dict.fromkeys(sentences) if sentence not in phrases.held_out)


@cache
def complaints(preference: Preference) -> tuple[str, ...]:
    """Return the trained wordings that say what was wrong."""
    return tuple(_all(_COMPLAINT_FRAMES, PHRASES[preference].complaints))


@cache
def system_lines(preference: Preference) -> tuple[str, ...]:
    """Return the trained sentences with which a system prompt states ``preference``."""
    phrases = PHRASES[preference]
    sentences = _all(_SYSTEM_VERB_FRAMES, phrases.verbs) + _all(_SYSTEM_NOUN_FRAMES, phrases.nouns)
    return tuple(sentence for sentence in sentences if sentence not in phrases.held_out)


def say(preference: Preference, rng: random.Random) -> str:
    """Return one trained wording: a wish, a complaint, two wishes in one, or a complaint with its wish."""
    draw = rng.random()
    if draw < 0.42:
        return rng.choice(wishes(preference))
    if draw < 0.77:
        return rng.choice(complaints(preference))
    if draw < 0.87:
        return _joined(preference, rng)
    return f"{rng.choice(PHRASES[preference].complaints)} {rng.choice(wishes(preference))}"


def _joined(preference: Preference, rng: random.Random) -> str:
    """Return a wish that names its object twice: "Bullets or dashes, please."."""
    phrases, word = PHRASES[preference], rng.choice(("and", "or"))
    frame = rng.choice(_NOUN_FRAMES if rng.random() < 0.5 else _VERB_FRAMES)
    one, other = rng.sample(phrases.nouns if frame in _NOUN_FRAMES else phrases.verbs, 2)
    text = _fill(frame, f"{one} {word} {other}")
    return text if text not in phrases.held_out else say(preference, rng)


def system_prompt(told: list[Preference], rng: random.Random) -> str:
    """Return a system prompt that states ``told`` in trained wordings."""
    lines = [rng.choice(system_lines(one) if rng.random() < 0.7 else wishes(one)) for one in told]
    return rng.choice(_PREAMBLES) + " ".join(lines)
