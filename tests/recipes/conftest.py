"""A small tokenizer and a model of two layers, built once."""

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from personalize.recipes import tokens
from personalize.recipes.architecture import build


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_CORPUS_DIALOGUES", 500)
        return tokens.train_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return build(tokenizer, layers=2, width=32, heads=2, inner=48)
