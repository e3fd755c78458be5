"""Judge: sorting the whole decoded text after the reply has ended."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalize.rendering import Detokenizer, cut
from personalize.rendering.thinking import Thinking
from tests.rendering.test_watch import first_match
from tests.templates import VOCAB_SIZE, renderer, tokenizer

RENDERER = renderer("think")
ENCODE = tokenizer("think").encode
END = tokenizer("think").convert_tokens_to_ids("<|end|>")
OPEN, CLOSE = (tokenizer("think").convert_tokens_to_ids(mark) for mark in ("<think>", "</think>"))


def ids_of(text: str) -> list[int]:
    return ENCODE(text, add_special_tokens=False)


@dataclass
class Letters:
    """One id per character; 0 ends a reply."""

    thinking: Thinking | None = None
    end_ids: frozenset[int] = frozenset({0})

    def decode(self, ids) -> str:
        return "".join(chr(token) for token in ids if token)


def run(renderer, ids, stop=(), reason="length"):
    words, text = Detokenizer(renderer, stop), ""
    for token in ids:
        text += words.feed(token)
        if words.stopped:
            break
    tail, completion = words.finish(reason)
    assert text + tail == completion.text  # what was streamed is what is recorded
    assert len(completion.token_ids) == len(completion.mask)
    return completion


def letters(text: str, stop=(), reason="length", **thinking):
    marks = Thinking("<t>", "</t>", **thinking) if thinking else None
    return run(Letters(marks), [0 if c == "#" else ord(c) for c in text], stop, reason)


# --- how a reply ends -----------------------------------------------------------------------------------------


def test_a_sampled_end_token_is_kept_and_trained():
    ids = [*ids_of("Hello there"), END]
    done = run(RENDERER, [*ids, *ids_of("never seen")])
    assert (done.token_ids, done.mask, done.text) == (tuple(ids), (1,) * len(ids), "Hello there")
    assert (done.finish_reason, done.stopped_by) == ("stop", "end_token")


def test_the_length_cap_keeps_whole_characters_and_no_end_token():
    ids = ids_of("ok 🦀")
    done = run(RENDERER, ids[:-1])
    assert done.text.rstrip() == "ok" and RENDERER.decode(done.token_ids) == done.text
    assert (done.finish_reason, done.stopped_by) == ("length", "length")
    assert run(RENDERER, ids).token_ids == tuple(ids)


def test_an_end_token_on_the_last_allowed_step_is_a_stop():
    assert run(RENDERER, [*ids_of("Hi"), END], reason="length").stopped_by == "end_token"


@pytest.mark.parametrize("cut_at", range(4))
def test_a_stop_string_across_token_borders(cut_at):
    pieces = ["Hello ST"[: 5 + cut_at], "Hello ST"[5 + cut_at :] + "OP it"]
    ids = [token for piece in pieces for token in ids_of(piece)]
    done = run(RENDERER, ids, stop=["never", "STOP"])
    assert (done.text, done.finish_reason, done.stopped_by) == ("Hello ", "stop", "stop_string")
    assert done.token_ids == tuple(ids[: len(done.token_ids)])
    assert "Hello ".startswith(RENDERER.decode(done.token_ids))


def test_the_token_in_which_a_stop_string_begins_is_not_recorded():
    ids = [*ids_of("One"), *ids_of(" sentence")]
    done = run(RENDERER, ids, stop=["ntence"])
    assert done.text == "One se"
    assert RENDERER.decode(done.token_ids) == "One"[: len(RENDERER.decode(done.token_ids))]
    assert len(RENDERER.decode(done.token_ids)) <= len(done.text)


def test_text_held_for_a_stop_string_is_given_at_the_end():
    assert letters("abST", ["STOP"]).text == "abST"
    assert letters("abST#", ["STOP"]).text == "abST"


def test_a_cancelled_reply_ends_with_what_was_given_out():
    done = letters("abST", ["STOP"], reason="cancel")
    assert (done.text, done.token_ids) == ("ab", (97, 98))
    assert (done.finish_reason, done.stopped_by, done.mask) == ("cancel", "cancel", (1, 1))


def test_cancelled_before_anything_was_said():
    done = run(RENDERER, [], reason="cancel")
    assert (done.token_ids, done.text, done.finish_reason) == ((), "", "cancel")


def test_an_empty_reply():
    done = run(RENDERER, [END])
    assert (done.token_ids, done.mask, done.text) == ((END,), (1,), "")


def test_held_text_comes_as_soon_as_it_is_no_stop_string():
    words = Detokenizer(Letters(), ["STOP"])
    assert [words.feed(ord(c)) for c in "aSTxSTOP"] == ["a", "", "", "STx", "", "", "", ""]
    assert words.stopped


def test_special_tokens_in_the_middle_are_recorded_and_not_shown():
    turn = tokenizer("think").convert_tokens_to_ids("<|turn|>")
    ids = [*ids_of("Hi"), turn, *ids_of(" there")]
    done = run(RENDERER, ids)
    assert (done.text, done.token_ids) == ("Hi there", tuple(ids))


# --- thoughts -------------------------------------------------------------------------------------------------


def test_a_thought_is_recorded_masked_and_never_shown():
    thought = [OPEN, *ids_of("\nhm 🙂 STOP\n"), CLOSE, *ids_of("\n\n")]
    answer = [*ids_of("Yes."), END]
    done = run(RENDERER, thought + answer, stop=["STOP"])
    assert done.text == "Yes."
    assert done.token_ids == tuple(thought + answer)
    assert done.mask == (0,) * len(thought) + (1,) * len(answer)


def test_a_reply_that_ends_inside_a_thought():
    ids = [*ids_of("Well "), OPEN, *ids_of("hm")]
    done = run(RENDERER, ids)
    assert (done.text, done.token_ids) == ("Well ", tuple(ids))
    assert done.mask == (1,) * (len(ids) - len(ids_of("hm")) - 1) + (0,) * (len(ids_of("hm")) + 1)
    ended = run(RENDERER, [OPEN, END])
    assert (ended.text, ended.mask) == ("", (0, 0))


def test_two_thoughts():
    ids = [*ids_of("a"), OPEN, *ids_of("x"), CLOSE, *ids_of("b"), OPEN, *ids_of("y"), CLOSE, *ids_of(" c"), END]
    done = run(RENDERER, ids)
    assert done.text == "abc"
    trained = [token for token, kept in zip(done.token_ids, done.mask, strict=True) if kept]
    assert trained == [*ids_of("a"), *ids_of("b"), *ids_of(" c"), END]


def test_a_mark_that_was_typed_is_text():
    plain = [token for piece in ("<th", "ink> is a mark") for token in ids_of(piece)]
    assert OPEN not in plain
    assert run(RENDERER, plain).text == "<think> is a mark"


def test_a_closing_mark_without_a_thought_is_not_shown():
    done = run(RENDERER, [*ids_of("a"), CLOSE, *ids_of(" b")])
    assert done.text == "a b"


def test_the_template_opened_the_thought():
    done = letters("hm</t>\n\nYes#", opened=True)
    assert (done.text, done.mask) == ("Yes", (0,) * 8 + (1,) * 4)
    assert letters("hm", opened=True).text == ""
    assert letters("hm", opened=True, reason="cancel").token_ids == (104, 109)


def test_marks_written_in_several_tokens():
    done = letters("a <t>x</t> b<tea>#", opened=False)
    assert done.text == "a b<tea>"
    assert done.mask == (1, 1) + (0,) * 9 + (1,) * 7


def test_stop_strings_count_outside_of_thoughts_only():
    done = letters("a<t>STOP</t>bSTOPc", ["STOP"], opened=False)
    assert (done.text, done.stopped_by) == ("ab", "stop_string")
    assert done.mask == (1,) + (0,) * 11 + (1,)
    assert letters("hm</t>STOP", ["STOP"], opened=True).text == ""


def test_a_half_written_mark_is_text_in_the_end():
    assert letters("a<t", opened=False).text == "a<t"
    cancelled = letters("a<t", opened=False, reason="cancel")
    assert (cancelled.text, cancelled.token_ids) == ("a", (97,))


# --- against the judge ----------------------------------------------------------------------------------------


PIECES = ("<t>", "</t>", "a", "b", "<", "/t>", "\n", "STOP", "ST", "OP")
ANY_TOKEN = st.integers(0, VOCAB_SIZE - 1).filter(lambda token: token not in (OPEN, CLOSE))


def judged(text: str, stop, opened: bool) -> tuple[str, list[int]]:
    """Return the visible text, and 1 for every character that is part of it."""
    visible, mask, thought, gap = "", [], opened, False
    while text:
        if gap:
            rest = text.lstrip()
            mask += [0] * (len(text) - len(rest))
            text, gap = rest, False
            continue
        free, met = first_match(text, ["</t>"] if thought else [*stop, "<t>"])
        visible += "" if thought else free
        mask += [0 if thought else 1] * len(free)
        if met in stop and not thought:
            break
        mask += [0] * len(met or "")
        text = text[len(free) + len(met or "") :]
        gap = thought and met is not None
        thought = thought != (met is not None)
    return visible, mask


@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.sampled_from([(), ("STOP",), ("OP", "ab"), ("<", "b<t")]),
    st.booleans(),
)
def test_as_if_the_whole_text_had_been_sorted(text, stop, opened):
    done = letters(text, stop, opened=opened)
    visible, mask = judged(text, stop, opened)
    assert done.text == visible
    assert list(done.mask) == mask
    assert done.token_ids == tuple(map(ord, text[: len(mask)]))


@given(st.lists(ANY_TOKEN, max_size=40), st.text(max_size=3))
def test_any_ids_are_shown_as_decoded_up_to_the_stop(ids, stop):
    ends = [i for i, token in enumerate(ids) if token in RENDERER.end_ids]
    ids = ids[: ends[0] + 1] if ends else ids
    done = run(RENDERER, ids, [stop] if stop else [])
    whole = RENDERER.decode(ids)
    if done.stopped_by == "end_token":
        assert done.text == whole and done.token_ids == tuple(ids)
    elif done.stopped_by == "stop_string":
        assert done.text == whole[: whole.index(stop)]
        assert done.text.startswith(RENDERER.decode(done.token_ids))
    else:
        assert whole.startswith(done.text) and done.text.startswith(RENDERER.decode(done.token_ids))
        for longer in range(len(done.token_ids) + 1, len(ids) + 1):  # no longer beginning ends with a whole character
            assert RENDERER.decode(ids[:longer]).endswith("\ufffd")


@pytest.mark.parametrize("num_chars", range(0, 14))
def test_cut_after_what_was_delivered(num_chars):
    ids = [OPEN, *ids_of("hm"), CLOSE, *ids_of("Hello 🙂 there"), END]
    whole = run(RENDERER, ids)
    done = cut(RENDERER, whole, num_chars)
    if num_chars >= len(whole.text):
        assert done is whole
    else:
        assert (done.finish_reason, done.stopped_by) == ("cancel", "cancel")
        assert whole.text.startswith(done.text) and len(done.text) <= num_chars
        assert done.token_ids == whole.token_ids[: len(done.token_ids)]
        assert done.mask == whole.mask[: len(done.mask)] and END not in done.token_ids
        longer = [run(RENDERER, ids[:n], reason="cancel") for n in range(len(done.token_ids) + 1, len(ids))]
        assert all(len(more.text) > num_chars or more.token_ids == done.token_ids for more in longer)


def test_the_cost_of_a_token_does_not_grow_with_the_thought():
    words = Detokenizer(Letters(Thinking("<t>", "</t>", opened=True)))
    for _ in range(5000):
        words.feed(120)
    done = words.finish("length")[1]
    assert sum(done.mask) == 0 and len(done.mask) == 5000
    assert len(words._hidden) == 1
