"""Six small chat templates with the quirks of the field, and a tokenizer to try them with; nothing is downloaded.

For tests elsewhere: ``@pytest.mark.parametrize("template", NAMES)`` with ``tokenizer(template)`` or
``renderer(template)``; the vocabulary has ``VOCAB_SIZE`` ids.
"""

from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from personalize.rendering import Renderer

NAMES = ("no_system", "strict_alternation", "think", "trimmed", "dated", "folded")
SPECIAL = ("<s>", "</s>", "<pad>", "<|turn|>", "<|end|>")
PLAIN_ADDED = ("<think>", "</think>", "<tool_response>", "</tool_response>")
MAX_MODEL_LEN = 4096

_CORPUS = [
    "The quick brown fox jumps over the lazy dog while the cook bakes bread in the kitchen.",
    "Please answer in one short sentence, without a list and without emoji. Thank you very much!",
    "Berlin is the capital of Germany; Paris is the capital of France. What is the capital of Spain?",
    "=== hindsight ===\n[Later the user writes the lines below. Let them guide the answer to the message above.]\n",
    "[INST] user assistant system model [/INST] <<SYS>> <</SYS>>\n\nToday Date: 01 Jan 2026\n",
    "One paragraph.\n\nAnother paragraph.\n\nAnd one more.\n\nThe end.\n\n",
    "naïve café 北京 привет мир 🙂 👩‍🚀 – “quotes” …",
]


def source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.jinja").read_text()


@lru_cache(maxsize=1)
def _backend() -> str:
    """Return a trained byte-level BPE tokenizer as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in PLAIN_ADDED])
    return tokenizer.to_str()


def plain_tokenizer(template: str, backend: str | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the template's source ``template``."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend or _backend()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=template,
    )


@lru_cache(maxsize=len(NAMES))
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return plain_tokenizer(source(name))


@lru_cache(maxsize=len(NAMES))
def renderer(name: str) -> Renderer:
    return Renderer(tokenizer(name), max_model_len=MAX_MODEL_LEN)


VOCAB_SIZE = len(tokenizer("dated"))
