"""Simulated users complain by rule, in words that were never trained, and otherwise say nothing about style."""

import random

import pytest

from personalize.evaluation.users import Chat, Said, SimulatedUser, fresh_prompts
from personalize.types import Message
from personalize.world.checkers import observe
from personalize.world.preferences import DEFAULT, Preference, styled
from personalize.world.replies import compose
from personalize.world.topics import held_out_topics, trained_topics
from personalize.world.wordings import complaints, held_out, wishes

SHORT, EMOJI = Preference("length", "short"), Preference("emoji", "emoji")
TOPIC = trained_topics()[0]


def user(seed: int = 0, patience: int = 1) -> SimulatedUser:
    return SimulatedUser("ada", (SHORT, EMOJI), seed, patience)


def reply(*told: Preference) -> str:
    return compose(TOPIC, styled(DEFAULT, told), random.Random(0))


@pytest.mark.parametrize("seed", range(20))
def test_complains_about_exactly_what_is_missing(seed: int):
    said = user(seed).reaction(Said("Tell me.", "question", TOPIC), reply(EMOJI))
    assert said.kind == "complaint" and said.topic is TOPIC
    assert said.text in held_out(SHORT)


def test_patience_bounds_the_preferences_in_one_complaint():
    said = user(patience=2).reaction(Said("Tell me.", "question", TOPIC), reply())
    assert any(text in said.text for text in held_out(SHORT)) and any(text in said.text for text in held_out(EMOJI))


@pytest.mark.parametrize("seed", range(40))
def test_a_content_user_says_nothing_about_style(seed: int):
    said = user(seed).reaction(Said("Tell me.", "question", TOPIC), reply(SHORT, EMOJI))
    assert said.kind in ("praise", "remark", "new_topic")
    wordings = {text for one in (SHORT, EMOJI) for text in (*wishes(one), *complaints(one), *held_out(one))}
    assert not any(text in said.text for text in wordings)


def test_plain_answers_are_not_judged():
    said = user().reaction(Said("Thanks!", "praise", None), "You are welcome.")
    assert said.kind != "complaint"


def test_held_out_wordings_are_never_trained():
    for one in (SHORT, EMOJI):
        assert not set(held_out(one)) & {*wishes(one), *complaints(one)}


def test_the_same_seed_says_the_same():
    first, second = user(3), user(3)
    for _ in range(5):
        assert first.opening() == second.opening()
    assert user(3).opening() != user(4).opening()


def test_fresh_prompts_are_about_held_out_topics_and_repeatable():
    prompts = fresh_prompts(200)
    assert prompts == fresh_prompts(200) and len({text for _, text in prompts}) == 200
    assert {topic for topic, _ in prompts} <= set(held_out_topics())
    assert all(topic.name in text for topic, text in prompts)
    with pytest.raises(ValueError, match="100000 is not allowed"):
        fresh_prompts(100_000)


def test_a_chat_is_what_its_client_keeps():
    chat = Chat()
    assert chat.ask("Hi") == (Message("user", "Hi"),)
    chat.answer("Hello")
    assert chat.ask("More")[1] == Message("assistant", "Hello") and len(chat.messages) == 3


def test_the_default_style_lacks_every_wish():
    style = observe(reply())
    assert all(style[one.dimension] != one.value for one in (SHORT, EMOJI))
