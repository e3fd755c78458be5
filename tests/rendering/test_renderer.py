import subprocess
import sys

import pytest
from transformers import GenerationConfig, LlamaConfig

from personalize.errors import ContextTooLong, ModelError, TemplateError
from personalize.rendering import Renderer, shared_prefix
from personalize.types import Message
from tests.templates import plain_tokenizer, renderer, source, tokenizer

HELLO = [Message("user", "Hello")]


def test_shared_prefix():
    assert shared_prefix((), (1,)) == 0
    assert shared_prefix((1, 2, 3), [1, 2, 4, 3]) == 2
    assert shared_prefix((1, 2), (1, 2, 3)) == shared_prefix((1, 2, 3), (1, 2)) == 2


def test_a_prompt_leaves_room_for_one_token():
    length = len(renderer("think").render(HELLO))
    assert len(Renderer(tokenizer("think"), max_model_len=length + 1).render(HELLO)) == length
    with pytest.raises(ContextTooLong, match=f"{length} tokens; at most {length - 1}"):
        Renderer(tokenizer("think"), max_model_len=length).render(HELLO)


def test_a_tokenizer_without_a_template_is_refused():
    bare = plain_tokenizer(source("think"))
    bare.chat_template = None
    with pytest.raises(TemplateError, match="no chat template"):
        Renderer(bare, max_model_len=64)


USELESS = ("{{ bos_token }}", "{{ raise_exception('never') }}", "{% if %}", "{{ nothing() }}")


@pytest.mark.parametrize("template", USELESS)
def test_a_template_that_cannot_show_a_user_is_refused(template):
    with pytest.raises(TemplateError):
        Renderer(plain_tokenizer(template), max_model_len=64)


def test_what_the_template_says_comes_with_the_error():
    picky = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}{{ messages[0].content }}"
    with pytest.raises(TemplateError, match="one at a time") as caught:
        Renderer(plain_tokenizer(picky), max_model_len=64).render([*HELLO, Message("assistant", "Hi"), *HELLO])
    assert caught.value.param == "messages"


def test_end_ids_of_the_generation_config():
    ends = GenerationConfig(eos_token_id=[7, 8])
    assert Renderer(tokenizer("folded"), generation_config=ends, max_model_len=64).end_ids == {1, 7, 8}
    one = GenerationConfig(eos_token_id=9)
    assert Renderer(tokenizer("folded"), generation_config=one, max_model_len=64).end_ids == {1, 9}


def test_thinking_marks_are_found_as_tokens_or_in_the_template():
    tokens = renderer("dated").thinking
    assert tokens is not None and not tokens.in_text and not tokens.opened
    seeds = "{{ messages[0].content }}{# <seed:think> </seed:think> #}"
    without = plain_tokenizer(seeds, tokenizer("dated").backend_tokenizer.to_str().replace("think>", "thunk>"))
    written = Renderer(without, max_model_len=64).thinking
    assert written is not None and written.in_text and written.opening == "<seed:think>"
    without.chat_template = source("trimmed")
    assert Renderer(without, max_model_len=64).thinking is None


def test_a_template_that_opens_the_thought():
    opening = source("trimmed").replace('"<|turn|>assistant\\n\\n"', '"<|turn|>assistant\\n<think>\\n"')
    thinking = Renderer(plain_tokenizer(opening), max_model_len=64).thinking
    assert thinking is not None and thinking.opened
    closed = renderer("think").thinking
    assert closed is not None and not closed.opened


def test_the_digest_covers_tokenizer_template_and_ends():
    digest = renderer("think").template_digest
    assert digest == Renderer(plain_tokenizer(source("think")), max_model_len=64).template_digest
    assert digest != renderer("trimmed").template_digest
    ends = GenerationConfig(eos_token_id=7)
    assert digest != Renderer(tokenizer("think"), generation_config=ends, max_model_len=64).template_digest
    more = plain_tokenizer(source("think"))
    more.add_tokens(["<more>"])
    assert digest != Renderer(more, max_model_len=64).template_digest


def test_decode_leaves_special_tokens_out():
    ids = tokenizer("think").encode("Hello<|end|> there", add_special_tokens=False)
    assert renderer("think").decode(ids) == "Hello there"
    assert renderer("think").decode([10**6]) == ""  # ids beyond the vocabulary exist where a model pads its head


def test_from_pretrained(tmp_path):
    tokenizer("think").save_pretrained(tmp_path)
    LlamaConfig(max_position_embeddings=333, vocab_size=512).save_pretrained(tmp_path)
    loaded = Renderer.from_pretrained(tmp_path)
    assert loaded.max_model_len == 333
    assert loaded.render(HELLO) == renderer("think").render(HELLO)
    assert loaded.template_digest == renderer("think").template_digest
    GenerationConfig(eos_token_id=[5]).save_pretrained(tmp_path)
    assert Renderer.from_pretrained(str(tmp_path), max_model_len=64).end_ids == loaded.end_ids | {5}


def test_from_pretrained_of_nothing(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        Renderer.from_pretrained(tmp_path / "nowhere")


def test_importing_loads_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'jinja2'}"
    code = f"import sys, personalize.rendering, personalize.turns; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
