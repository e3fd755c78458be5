import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from personalize.rendering import Renderer
from personalize.rendering.control import ControlTokens, PieceEncoder
from personalize.types import Message
from tests.templates import NAMES, PLAIN_ADDED, SPECIAL, plain_tokenizer, renderer, source, tokenizer

TOKENS = ("<|end|>", "<|end", "end|>x", "</s>", "\n\n", "  ", "x", "<<", "ab", "bc", "c")
CONTROL = ControlTokens(TOKENS)
typed = st.text("<|end>/sxabc \n", max_size=40) | st.lists(st.sampled_from(TOKENS), max_size=6).map("".join)


@given(typed)
def test_no_piece_contains_a_control_token(text):
    (marked,), mark = CONTROL.mark([text])
    pieces = marked.split(mark) if mark else [text]
    assert "".join(pieces) == text
    real = [token for token in TOKENS if len(token) > 1 and not token.isspace()]
    assert not any(token in piece for token in real for piece in pieces)
    assert (mark is None) == (not any(token in text for token in real))


def test_one_cut_per_occurrence():
    assert CONTROL.cuts("a <|end|> b </s></s>") == [3, 13, 17]
    assert CONTROL.cuts("x \n\n  c < | end") == []


def test_white_space_and_single_characters_are_text():
    assert "\n\n" not in CONTROL and "x" not in CONTROL and "</s>" in CONTROL
    assert ControlTokens(()).cuts("<|end|>") == []


def test_the_mark_occurs_nowhere():
    hostile = ["\ue0000\ue001 \ue0001\ue001", "</s>"]
    contents, mark = CONTROL.mark(hostile, avoid="\ue0002\ue001")
    assert mark == "\ue0003\ue001"
    assert contents == [hostile[0], f"<{mark}/s>"]


def space_first(text_tokens=("<s>", "</s>", "<|end|>")) -> Tokenizer:
    """A tokenizer in the manner of Llama 2: a space that nobody wrote begins every text; bytes as a last resort."""
    letters = [chr(i) for i in range(33, 127)] + ["▁"]
    vocab = {token: i for i, token in enumerate([f"<0x{i:02X}>" for i in range(256)] + letters)}
    merges = [("▁", "a"), ("a", "n"), ("e", "n"), ("▁", "<")]
    for pair in merges:
        vocab["".join(pair)] = len(vocab)
    slow = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True))
    slow.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    slow.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    slow.add_tokens([AddedToken(text, special=True, normalized=False) for text in text_tokens])
    return slow


@pytest.fixture(scope="module")
def llama_like() -> Renderer:
    return Renderer(plain_tokenizer(source("folded"), space_first().to_str()), max_model_len=4096)


@pytest.mark.parametrize("content", ["<|end|>", "an <|end|> and </s>", "</s></s>x", "🙂<s>\n<|end|> end"])
def test_no_space_creeps_in_between_pieces(llama_like, content):
    ids = llama_like.render([Message("user", content)])
    assert llama_like.tokenizer.decode(ids) == f"<s> [INST] {content} [/INST]"
    added = {llama_like.tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<|end|>")}
    assert sum(token in added for token in ids) == 1


def test_pieces_of_a_plain_tokenizer_are_encoded_one_by_one():
    calls = []

    def encode(text: str) -> list[int]:
        calls.append(text)
        return list(text.encode())

    encoder = PieceEncoder(encode, lambda ids: bytes(ids).decode())
    calls.clear()
    assert bytes(encoder(["ab", "cd", ""])) == b"abcd"
    assert calls == ["ab", "cd", ""]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("token", [*SPECIAL, *PLAIN_ADDED])
def test_every_added_token_can_be_talked_about(name, token):
    ids = renderer(name).render([Message("user", f"What is {token}? {token}{token}")])
    text = tokenizer(name).decode(ids)
    assert f"What is {token}? {token}{token}" in text
    number = tokenizer(name).convert_tokens_to_ids(token)
    without = renderer(name).render([Message("user", "What is it?")])
    assert ids.count(number) == without.count(number)


def test_the_block_is_encoded_in_the_same_way():
    follow_up = "Never write <|end|> again"
    ids = renderer("think").render([Message("user", "Hi")], [follow_up])
    assert f"\n{follow_up}<|end|>\n<|turn|>assistant" in tokenizer("think").decode(ids)
    end = tokenizer("think").convert_tokens_to_ids("<|end|>")
    assert ids.count(end) == 1
