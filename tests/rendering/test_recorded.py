"""A recorded reply in a model's own ids."""

import pytest

from personalize.backends.echo import END, ByteRenderer
from personalize.errors import TemplateError
from personalize.rendering import Renderer, as_sampled
from personalize.types import Message
from tests.templates import MAX_MODEL_LEN, NAMES, renderer, source, tokenizer

TEXT = "Berlin is the capital.\n\nThe end, naïve café 🙂."


@pytest.mark.parametrize("name", NAMES)
def test_prompt_and_reply_together_are_what_the_template_writes(name):
    shown = renderer(name)
    prompt = shown.render([Message("user", "What is it?")])
    completion = as_sampled(shown, f"\n {TEXT} \n")
    assert completion.text.strip() == TEXT and completion.finish_reason == "stop"
    assert set(completion.mask) == {1} and completion.token_ids[-1] in shown.end_ids
    assert not shown.end_ids.intersection(completion.token_ids[:-1])
    longer = shown.render([Message("user", "What is it?"), Message("assistant", TEXT), Message("user", "shorter")])
    served = (*prompt, *completion.token_ids[:-1])
    if name != "think":  # that one takes its empty thought out of the history
        assert shown.decode(longer).startswith(shown.decode(served))
    if name not in ("think", "trimmed"):  # there the prompt ends with a token that no text may follow
        assert longer[: len(served)] == served


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_that_somebody_typed_stay_text(name):
    shown = renderer(name)
    completion = as_sampled(shown, "a <|end|> b </s> c")
    assert completion.text.strip() == "a <|end|> b </s> c"
    assert shown.end_ids.intersection(completion.token_ids) == {completion.token_ids[-1]}


def test_a_reply_that_was_cut_trains_no_end():
    whole, cut = as_sampled(renderer("trimmed"), TEXT), as_sampled(renderer("trimmed"), TEXT, ended=False)
    assert cut.token_ids == whole.token_ids[:-1] and cut.finish_reason == "cancel" and cut.text == whole.text


def test_bytes_are_bytes():
    completion = as_sampled(ByteRenderer(), "é")
    assert completion.token_ids == (*"é".encode(), END) and completion.mask == (1, 1, 1)


def test_a_model_that_always_thinks_first_is_refused():
    always = source("think").replace("<think>\\n\\n</think>\\n\\n", "<think>\\n")
    thinks = Renderer(type(tokenizer("think"))(
        tokenizer_object=tokenizer("think").backend_tokenizer, bos_token="<s>", eos_token="</s>", chat_template=always
    ), max_model_len=MAX_MODEL_LEN)  # fmt: skip
    with pytest.raises(TemplateError, match="no visible words"):
        as_sampled(thinks, TEXT)
