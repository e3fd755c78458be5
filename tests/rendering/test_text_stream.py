"""Judge: decoding everything at once."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalize.rendering.text_stream import TextStream
from tests.rendering.test_control import space_first
from tests.templates import VOCAB_SIZE, renderer, tokenizer

DECODE = renderer("dated").decode
LLAMA = space_first()
TEXTS = st.text() | st.text("aé北🙂👩‍🚀 \n\ufffd", max_size=30)


def llama_decode(ids) -> str:
    return LLAMA.decode(list(ids), skip_special_tokens=True)


def streamed(decode, ids) -> list[str]:
    stream = TextStream(decode)
    return [*(stream.feed(token) for token in ids), stream.flush()]


@given(TEXTS)
def test_pieces_join_to_the_whole_text(text):
    assert "".join(streamed(DECODE, tokenizer("dated").encode(text, add_special_tokens=False))) == text


@given(TEXTS.filter(lambda text: "\ufffd" * 4 not in text))  # there bytes that spell U+FFFD look like broken ones
def test_pieces_join_where_the_decoder_strips_the_first_space(text):
    ids = LLAMA.encode(text).ids
    assert "".join(streamed(llama_decode, ids)) == llama_decode(ids)


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=60))
def test_any_ids_give_what_decoding_them_at_once_gives(ids):
    assert "".join(streamed(DECODE, ids)) == DECODE(ids)


@given(st.text("é北🙂👩‍🚀", min_size=1, max_size=20))
def test_no_unfinished_character_is_given_out(text):
    ids = tokenizer("dated").encode(text, add_special_tokens=False)
    assert all("\ufffd" not in piece for piece in streamed(DECODE, ids))


def test_pending_says_whether_a_character_is_unfinished():
    stream = TextStream(DECODE)
    ids = tokenizer("dated").encode("🦀", add_special_tokens=False)
    assert len(ids) > 1
    states = [(stream.feed(token), stream.pending) for token in ids]
    assert states == [("", True)] * (len(ids) - 1) + [("🦀", False)]


def test_bytes_that_never_become_a_character_come_out_in_the_end():
    (broken,) = tokenizer("dated").convert_tokens_to_ids(["ÿ"])  # byte 0xFF
    pieces = streamed(DECODE, [broken] * 50)
    assert "".join(pieces) == "\ufffd" * 50
    assert sum(map(len, pieces[:-1])) >= 30


def test_tokens_without_text_do_not_eat_a_space():
    space, word = LLAMA.encode("an an").ids[0], LLAMA.encode("an an").ids[-1]
    silent = LLAMA.token_to_id("</s>")
    ids = [space, silent, silent, word, silent, word]
    assert "".join(streamed(llama_decode, ids)) == llama_decode(ids)
    assert "".join(streamed(llama_decode, [space, *[silent] * 100, word])) == llama_decode([space, word])


@pytest.mark.parametrize("kind", ["text", "silent"])
def test_the_cost_of_a_token_does_not_grow(kind):
    rng = random.Random(0)
    ids = [rng.randrange(5, VOCAB_SIZE) if kind == "text" else 0 for _ in range(4000)]
    decoded = []

    def decode(window) -> str:
        decoded.append(len(window))
        return DECODE(window)

    streamed(decode, ids)
    assert sum(decoded) / len(ids) < 25
    assert max(decoded) < 60


def test_speed_is_no_worse_than_a_millisecond_per_token():
    ids = tokenizer("dated").encode("The quick brown fox. " * 50, add_special_tokens=False)
    start = time.thread_time()
    streamed(DECODE, ids)
    assert (time.thread_time() - start) / len(ids) < 1e-3
