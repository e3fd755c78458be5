"""The rules of calibration read any chat model's text."""

import pytest

from personalize.evaluation.calibration.questions import QUESTIONS, question
from personalize.evaluation.calibration.wishes import EMPTY, IDLE, UNRELATED, WISHES, first_sentence_end, together

RULES = {wish.name: wish.holds for wish in WISHES}
PROSE = "Tea is a drink. It is made from leaves."


@pytest.mark.parametrize(
    ("name", "text", "holds"),
    [
        ("one sentence", "Tea is a drink.", True),
        ("one sentence", "  Tea, e.g. green tea, costs 2.50 a cup!  ", True),
        ("one sentence", 'He said: "Tea is a drink."', True),
        ("one sentence", PROSE, False),
        ("one sentence", "Tea is a drink.\nIt is hot", False),
        ("one sentence", "Tea is a drink without an", False),
        ("one sentence", "Tea.", False),
        ("one sentence", "", False),
        ("bullet list", "Sure:\n\n- Tea is a drink.\n- It is hot.", True),
        ("bullet list", "* Tea\n* Milk", True),
        ("bullet list", "- Tea is a drink.", False),
        ("bullet list", "**Tea** is a drink.\n**Milk** is one too.", False),
        ("bullet list", "1. Tea\n2. Milk", False),
        ("numbered list", "1. Tea\n2. Milk", True),
        ("numbered list", "Here:\n 1) Tea\n 2) Milk", True),
        ("numbered list", "In 1990 tea cost 2. Now it costs 3.", False),
        ("greeting first", "Hello there! Tea is a drink.", True),
        ("greeting first", "**Good morning!** Tea …", True),
        ("greeting first", "Hiking needs tea.", False),
        ("greeting first", "Tea says hello.", False),
        ("closing question", "Tea is a drink. Do you like it? 😊", True),
        ("closing question", 'Shall I go on?"', True),
        ("closing question", "Do you like it? I do.", False),
        ("closing question", "Do you like it? Yes", False),
        ("capital letters", "TEA IS A DRINK.", True),
        ("capital letters", "TEA IS A DRINK of leaves.", False),
        ("capital letters", "TEA.", False),
        ("capital letters", "1234567890 !!", False),
    ],
)
def test_rules(name, text, holds):
    assert RULES[name](text) is holds


@pytest.mark.parametrize("name", RULES)
def test_plain_prose_fulfils_no_wish(name):
    assert not RULES[name](PROSE)


@pytest.mark.parametrize(
    ("text", "end"), [(PROSE, 15), (f"\n {PROSE}", 17), ("Tea is hot\nIt is", 10), ("Tea is hot.", 11), ("", 0)]
)
def test_the_first_sentence_ends_at_a_gap_or_a_line(text, end):
    assert first_sentence_end(text) == end


def test_wishes_that_exclude_each_other_are_never_told_together():
    chosen = [{wish.name for wish in choice} for choice in together(WISHES, 4)]
    rest = {"greeting first", "closing question", "capital letters"}
    assert chosen == [{"bullet list", *rest}, {"numbered list", *rest}]
    assert not list(together(WISHES, 5))
    assert {name for wish in WISHES for name in wish.excludes} <= set(RULES)
    assert len(list(together(WISHES, 1))) == len(WISHES)


def test_what_is_said_is_distinct_and_no_idle_follow_up_is_a_wish():
    said = [text for wish in WISHES for text in wish.said]
    idle = [text for texts in IDLE.values() for text in texts]
    assert len({*said, *idle}) == len(said) + len(idle)
    assert {EMPTY, *UNRELATED} < set(IDLE)
    assert len({wish.name for wish in WISHES} | set(IDLE)) == len(WISHES) + len(IDLE)


def test_questions_begin_anew_after_the_last():
    assert len(set(QUESTIONS)) == len(QUESTIONS)
    assert question(len(QUESTIONS) + 1) == QUESTIONS[1]
