"""The questions that a model brings, or those that every assistant is asked."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from personalize import pocket
from personalize.errors import ModelError
from personalize.model.digest import folder_digest
from personalize.model.loading import load_base
from personalize.model.probes import FILE, MAX_PROBES, PROBES, read_probes
from tests.templates import VOCAB_SIZE, tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer("trimmed").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_model_without_questions_is_asked_the_general_ones(saved):
    assert load_base(saved, device="cpu").probes == PROBES
    assert 2 <= len(PROBES) <= MAX_PROBES


def test_a_model_brings_its_own_and_is_the_same_base_with_them(copy):
    before = folder_digest(copy)
    (copy / FILE).write_text('["What is rye?", "Où est la gare ?"]', encoding="utf-8")
    base = load_base(copy, device="cpu")
    assert base.probes == ("What is rye?", "Où est la gare ?")
    assert base.base_digest == folder_digest(copy) == before


def test_the_embedded_model_brings_its_own():
    assert read_probes(pocket.path()) != PROBES


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[", b"\xff\xfe", b"{}", b'"What is rye?"', b"[]", b'["What is rye?"]', b'["What is rye?", " "]',
        b'["What is rye?", 3]', json.dumps([f"What is {n}?" for n in range(MAX_PROBES + 1)]).encode(),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_file_and_what_is_allowed(copy, content):
    (copy / FILE).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{FILE} (is no JSON|holds .*allowed: a list of 2 to {MAX_PROBES})"):
        load_base(copy, device="cpu")


@pytest.mark.parametrize("words", [40, 400])
def test_a_question_that_leaves_its_answer_no_room_is_refused_before_it_can_fail_an_update(copy, words):
    (copy / FILE).write_text(json.dumps(["What is rye?", "What is rye and " + "so on and " * words]))
    with pytest.raises(
        ModelError, match=rf"{FILE}: 'What is rye and so .* tokens or more; allowed: 64, half of the con"
    ):
        load_base(copy, device="cpu")
