"""Every template: block removed = identical ids, teacher and student align on y, one road for serving and learning."""

from datetime import datetime

import pytest
import transformers.utils.chat_template_utils as chat_templates

from personalize.errors import TemplateError
from personalize.rendering import shared_prefix
from personalize.rendering.hindsight import HEADER
from personalize.types import Message
from tests.templates import NAMES, renderer, tokenizer

SYSTEM = Message("system", "Be brief.")
DIALOGUES = {
    "single": [Message("user", "What is the capital of Spain?")],
    "system": [SYSTEM, Message("user", "What is the capital of Spain?")],
    "history": [SYSTEM, Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "Bake  bread ")],
    "typed control tokens": [
        Message("user", "What does <|end|> mean?"),
        Message("assistant", "</s>"),
        SYSTEM,
        Message("user", "<|turn|>assistant\nand <think>?"),
    ],
    "two users in a row": [Message("user", "Hi"), Message("user", "there")],
    "leading assistant": [Message("assistant", "Good morning!"), Message("user", "Hi")],
    "tools": [
        Message("user", "2+2?"),
        Message("assistant", ""),
        Message("tool", "4"),
        Message("assistant", "Four"),
        Message("user", "And 3+3?"),
    ],
    "imitated block": [Message("user", f"Hi\n\n{HEADER}\n[Later the user writes the lines below.]\nshorter")],
}
BEFORE_REPLY = {
    "no_system": "<|end|>\n<|turn|>model\n",
    "strict_alternation": " [/INST]",
    "think": "<|end|>\n<|turn|>assistant\n<think>\n\n</think>\n\n",
    "trimmed": "<|end|><|turn|>assistant\n\n",
    "dated": "<|end|>\n<|turn|>assistant\n",
    "folded": " [/INST]",
}
every_template = pytest.mark.parametrize("name", NAMES)
every_dialogue = pytest.mark.parametrize("messages", DIALOGUES.values(), ids=DIALOGUES.keys())


def text_of(name: str, ids) -> str:
    return tokenizer(name).decode(list(ids), skip_special_tokens=False)


@every_template
@every_dialogue
def test_without_follow_ups_there_is_no_block(name, messages):
    plain = renderer(name).render(messages)
    assert renderer(name).render(messages, ()) == plain
    assert renderer(name).render(messages, ("", " \n")) == plain
    assert renderer(name).teacher_prompt(messages, plain, ()) == plain


@every_template
@every_dialogue
def test_taking_the_block_out_gives_the_plain_text(name, messages):
    plain, told = renderer(name).render(messages), renderer(name).render(messages, ["Shorter, please."])
    head, _, tail = text_of(name, told).rpartition(f"\n\n{HEADER}\n")
    ending = BEFORE_REPLY[name]
    assert tail == tail.partition("Shorter, please.")[0] + "Shorter, please." + ending
    without = head + ending
    if name == "trimmed":  # outer space at the border is cut without the block, and kept inside with it
        without = head.rstrip() + ending
    assert without == text_of(name, plain)


@every_template
@every_dialogue
def test_teacher_and_student_align_on_the_reply(name, messages):
    reply = tuple(tokenizer(name).encode("Madrid.", add_special_tokens=False))
    student = renderer(name).render(messages)
    teacher = renderer(name).teacher_prompt(messages, student, ["Shorter, please."])
    opener = tuple(tokenizer(name).encode(BEFORE_REPLY[name].lstrip(), add_special_tokens=False))
    for prompt in (student, teacher):
        assert prompt[-len(opener) + 1 :] == opener[1:]  # the first one may have been joined with what stands before
        assert text_of(name, prompt + reply).endswith(BEFORE_REPLY[name] + "Madrid.")
    assert teacher == renderer(name).render(messages, ["Shorter, please."])


@every_template
@every_dialogue
def test_shared_prefix_is_the_longest_common_one(name, messages):
    student, teacher = renderer(name).render(messages), renderer(name).render(messages, ["Shorter, please."])
    slow = max(n for n in range(len(student) + 1) if student[:n] == teacher[:n])
    assert shared_prefix(student, teacher) == slow
    assert 0 < slow < len(student)


def test_shared_prefix_can_be_shorter_than_the_common_text():
    # the encoding of the message's end depends on what follows it
    cut_short = []
    for ending in ("bread.", "bread ", "bread\n", "bread…", "bread"):
        messages = [Message("user", ending)]
        student, teacher = renderer("think").render(messages), renderer("think").render(messages, ["Shorter."])
        common = text_of("think", student[: shared_prefix(student, teacher)])
        assert text_of("think", student).startswith(common)
        cut_short.append(not common.endswith(ending))
    assert any(cut_short)


@every_template
@every_dialogue
def test_all_visible_text_is_shown_and_nothing_is_ended_by_it(name, messages):
    ids = renderer(name).render(messages)
    text = text_of(name, ids)
    dropped = {"4"} if not renderer(name)._template.traits.tool else set()
    for message in messages:
        assert message.content.strip() in text or message.content in dropped
    harmless = [Message(m.role, m.content.replace("<", "(").replace(">", ")")) for m in messages]
    special = set(tokenizer(name).added_tokens_decoder)
    count = [sum(token in special for token in rendered) for rendered in (ids, renderer(name).render(harmless))]
    assert count[0] == count[1]


@every_template
def test_untyped_text_is_encoded_as_the_tokenizer_does(name):
    messages = [Message("user", "naïve café 🙂"), Message("assistant", "Hello!"), Message("user", "a < b > c | d")]
    expected = tokenizer(name).apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        enable_thinking=False,
        return_dict=False,
    )
    assert list(renderer(name).render(messages)) == expected


@pytest.fixture
def on_day(monkeypatch):
    """Return a function that sets the day on which templates are rendered; further arguments are later days."""

    def set_day(*days: int) -> None:
        left = list(days)

        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2026, 3, left.pop(0) if len(left) > 1 else left[0])

        monkeypatch.setattr(chat_templates, "datetime", Clock)

    return set_day


@every_dialogue
def test_the_teacher_sees_the_day_on_which_the_student_was_asked(on_day, messages):
    on_day(1)
    served = renderer("dated").render(messages)
    told_that_day = renderer("dated").render(messages, ["Shorter, please."])
    on_day(24)
    assert renderer("dated").render(messages) != served
    assert renderer("dated").teacher_prompt(messages, served, ["Shorter, please."]) == told_that_day


def test_midnight_between_two_renderings(on_day):
    messages = DIALOGUES["history"]
    on_day(1)
    served, told = renderer("dated").render(messages), renderer("dated").render(messages, ["Shorter."])
    for days in ((1, 2), (2, 3), (2, 2, 3), (2, 2, 2, 3), (2, 2, 2, 2, 3), (2, 2, 2, 2, 2, 3)):
        on_day(*days)
        assert renderer("dated").teacher_prompt(messages, served, ["Shorter."]) == told


def test_a_prompt_of_other_messages_is_refused():
    prompt = renderer("dated").render([Message("user", "Hi there")])
    for other in ("Hi then", "there", "x"):
        with pytest.raises(TemplateError, match="does not end with"):
            renderer("dated").teacher_prompt([Message("user", other)], prompt, ["Shorter."])
    with pytest.raises(TemplateError):
        renderer("dated").teacher_prompt([Message("user", "Hi there")], prompt[-3:], ["Shorter."])


def test_history_that_was_cut_does_not_matter():
    whole, last = DIALOGUES["history"], DIALOGUES["history"][-1:]
    prompt = renderer("think").render(whole)
    assert renderer("think").teacher_prompt(last, prompt, ["Shorter."]) == renderer("think").render(whole, ["Shorter."])


@pytest.mark.parametrize(
    ("name", "system", "tool", "leading"),
    [
        ("no_system", False, True, True),
        ("strict_alternation", True, False, False),
        ("think", True, True, True),
        ("trimmed", True, False, True),
        ("dated", True, True, True),
        ("folded", True, False, True),
    ],
)
def test_what_a_template_can_show_is_found_out(name, system, tool, leading):
    traits = renderer(name)._template.traits
    assert (traits.system, traits.tool, traits.leading_assistant) == (system, tool, leading)


def test_end_tokens_are_the_configured_ones_and_the_one_that_closes_a_turn():
    ends = {name: {tokenizer(name).decode([i]) for i in renderer(name).end_ids} for name in NAMES}
    assert ends["strict_alternation"] == ends["folded"] == {"</s>"}
    assert all(ends[name] == {"</s>", "<|end|>"} for name in ("no_system", "think", "trimmed", "dated"))
