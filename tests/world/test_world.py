"""The world: every style is written and read back; held-out topics and wordings never leak into training."""

import random
import re

import pytest

from personalize.world import checkers, dialogues, small_talk, wordings
from personalize.world.chats import Dialogue, base_style
from personalize.world.dialogues import Course, dialogue
from personalize.world.preferences import DEFAULT, PREFERENCES, VALUES, Preference, styled
from personalize.world.replies import compose
from personalize.world.topics import FACTS_PER_TOPIC, held_out_topics, topics, trained_topics

NUM_DIALOGUES = 2_000


@pytest.fixture(scope="module")
def told_dialogues() -> list[Dialogue]:
    rng = random.Random(0)
    return [dialogue(rng) for _ in range(NUM_DIALOGUES)]


@pytest.fixture(scope="module")
def known() -> set[str]:
    rng = random.Random(3)
    return set().union(*(_words(wordings.say(one, rng)) for one in PREFERENCES for _ in range(300)))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_enough_to_talk_about() -> None:
    assert len(topics()) >= 150
    assert len(held_out_topics()) == 24
    assert len({topic.name for topic in topics()}) == len(topics())
    assert len({fact for topic in topics() for fact in topic.facts}) == FACTS_PER_TOPIC * len(topics())


def test_every_fact_is_one_sentence() -> None:
    for topic in topics():
        assert len(topic.facts) == FACTS_PER_TOPIC
        for fact in topic.facts:
            assert checkers.read(fact).body == (fact,)
            assert fact.endswith(".")


def test_observed_style_is_the_composed_style() -> None:
    rng = random.Random(1)
    for _ in range(5_000):
        topic = rng.choice(topics())
        style = {dimension: rng.choice(values) for dimension, values in VALUES.items()}
        reply = compose(topic, style, rng)
        assert checkers.observe(reply) == style, reply
        assert checkers.is_correct(topic, reply), reply


def test_wrong_facts_are_noticed() -> None:
    one, other = topics()[:2]
    reply = compose(one, DEFAULT, random.Random(0))
    assert not checkers.is_correct(other, reply)
    assert not checkers.is_correct(one, reply + " Tea is a fish.")
    assert not checkers.is_correct(one, "")


@pytest.mark.parametrize("preference", PREFERENCES, ids=str)
def test_wordings(preference: Preference, known: set[str]) -> None:
    trained = {*wordings.wishes(preference), *wordings.complaints(preference)}
    held_out = wordings.held_out(preference)
    assert len(trained) >= 10
    assert len(set(held_out)) >= 4
    assert not trained & set(held_out)
    for text in held_out:
        assert _words(text) <= known, _words(text) - known


def test_no_two_preferences_share_a_wording() -> None:
    texts = [
        text
        for one in PREFERENCES
        for text in {*wordings.wishes(one), *wordings.complaints(one), *wordings.held_out(one)}
    ]
    assert len(texts) == len(set(texts))


def test_held_out_texts_are_never_trained(told_dialogues: list[Dialogue]) -> None:
    texts = (text for one in told_dialogues for text in (*(message.content for message in one.messages), *one.block))
    spoken = {sentence for text in texts for sentence in re.split(r"(?<=[.!?])\s+", text)}
    held_out = {text for one in PREFERENCES for text in wordings.held_out(one)}
    assert not spoken & (held_out | {*small_talk.HELD_OUT_REFUSED, *small_talk.HELD_OUT_REMARKS})


def test_held_out_topics_are_only_told_in_the_default_style(told_dialogues: list[Dialogue]) -> None:
    titles = {fact for topic in held_out_topics() for fact in topic.facts}
    seen = 0
    for one in told_dialogues:
        replies = [message.content for message in one.messages if message.role == "assistant"]
        for reply in replies if one.teaches != "style" else []:
            if titles & set(checkers.read(reply).body):
                seen += 1
                assert checkers.observe(reply) == DEFAULT
                assert not any(message.role == "system" for message in one.messages)
    assert seen > 100


def test_what_is_not_told_is_mostly_the_default() -> None:
    rng = random.Random(2)
    styles = [base_style(rng, 0.05) for _ in range(4_000)]
    for dimension, values in VALUES.items():
        for value in values[1:]:
            assert 0.02 < sum(style[dimension] == value for style in styles) / len(styles) < 0.08
    assert base_style(rng, 0.0) == DEFAULT


def test_held_out_topics_teach_no_style(told_dialogues: list[Dialogue]) -> None:
    held_out = {fact for topic in held_out_topics() for fact in topic.facts}
    for one in told_dialogues:
        told = {sentence for message in one.messages for sentence in checkers.read(message.content).body}
        assert one.teaches != "everything" or not held_out & told
    assert {one.teaches for one in told_dialogues} == {"everything", "facts", "style"}


def test_how_one_asks_decides_the_first_fact() -> None:
    rng = random.Random(5)
    starts = {small_talk.asked(topics()[0], rng) for _ in range(300)}
    assert len({text for text, _ in starts}) == len(starts) == len(small_talk.QUESTIONS)
    assert {start for _, start in starts} == set(range(FACTS_PER_TOPIC))
    text = compose(topics()[0], DEFAULT, rng, start=4)
    assert checkers.read(text).body == (*topics()[0].facts[4:], topics()[0].facts[0])


def test_the_course_begins_with_single_wishes() -> None:
    rng = random.Random(6)
    first, last = ([dialogue(rng, share=share) for _ in range(400)] for share in (0.0, 1.0))
    assert all(len(one.messages) == 2 for one in first if one.block)
    assert any(len(one.messages) > 2 for one in last if one.block)
    assert not any(message.role == "system" for one in first for message in one.messages)


def test_the_later_preference_wins() -> None:
    told = [Preference("length", "short"), Preference("emoji", "emoji"), Preference("length", "long")]
    assert styled(DEFAULT, told) == {**DEFAULT, "length": "long", "emoji": "emoji"}
    with pytest.raises(ValueError, match="no such preference"):
        Preference("length", "huge")


def test_noise_changes_the_style_after_idle_blocks_only() -> None:
    lesson = Course().lesson(1.0)
    clean, noisy = (
        [dialogues._neutral_block(dialogues._Room(random.Random(seed), lesson, flag)) for seed in range(400)]
        for flag in (False, True)
    )
    assert all(one.messages[:-1] == other.messages[:-1] for one, other in zip(clean, noisy, strict=True))
    changed = sum(one.messages[-1] != other.messages[-1] for one, other in zip(clean, noisy, strict=True))
    assert 130 < changed < 230, "half of the replies that have a style"
    shares = [Course(noisy=flag).lesson(1.0).kinds[dialogues._neutral_block] for flag in (False, True)]
    assert shares[1] > 2 * shares[0]


def test_trained_and_held_out_topics_are_apart() -> None:
    assert not set(trained_topics()) & set(held_out_topics())


def test_the_dialogues_hold_every_kind_of_turn() -> None:
    every = [dialogue(random.Random(seed)) for seed in range(1_200)]
    said = [message.content for one in every for message in one.messages if message.role == "user"]
    answered = [message.content for one in every for message in one.messages if message.role == "assistant"]
    assert sum(len(one.messages) > 3 for one in every) > 200, "multi-turn"
    assert {small_talk.WELCOME, small_talk.NOTED, small_talk.REFUSAL} <= set(answered)
    assert any(re.fullmatch(r"\d+ plus \d+ is \d+\.", text) for text in answered), "sums"
    for texts in (small_talk.PRAISE, small_talk.REFUSED):
        assert any(text in message for message in said for text in texts)
    assert any(message.role == "system" for one in every for message in one.messages)
    assert any(one.block for one in every) and any(not one.block for one in every)
