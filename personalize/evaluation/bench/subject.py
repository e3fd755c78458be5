"""The model under measurement: our base, and the same weights in transformers' own layers for its peers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedConfig, Qwen3Config

from personalize import pocket
from personalize.config import EngineSettings
from personalize.engine.engine import Engine
from personalize.errors import InvalidParameter
from personalize.model.base import BaseModel
from personalize.model.loading import Device, load_base
from personalize.rendering.detokenizer import Vocabulary
from personalize.rendering.renderer import Renderer

LLAMA_135M = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
)  # fmt: skip
QWEN3_600M = Qwen3Config(
    vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True,
)  # fmt: skip
SHAPES: Mapping[str, tuple[str, PreTrainedConfig | None]] = {
    "pocket": ("embedded model", None),
    "135m": ("SmolLM2-135M shape", LLAMA_135M),
    "0.6b": ("Qwen3-0.6B shape", QWEN3_600M),
}
"""Name -> its words in the table, and its shape; the embedded model comes with weights, the others get random ones."""

GOAL_SHAPE = "135m"
"""The goals of the table are meant for this one."""


class Folded:
    """A vocabulary whose ids beyond the tokenizer's are shown as others, so that every token costs its decoding."""

    end_ids: frozenset[int] = frozenset()

    def __init__(self, renderer: Renderer):
        self._renderer = renderer
        self._size = len(renderer.tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        return self._renderer.decode([one % self._size for one in ids])


@dataclass(frozen=True, slots=True)
class Subject:
    """One model in two builds that share their weights.

    Attributes:
        name: key of ``SHAPES``, or what a test calls its own.
        label: its words in the table.
        base: ours; no token ends a reply.
        stock: transformers' own, for peers; no token ends a reply there either.
        vocabulary: what engines show ids with.
    """

    name: str
    label: str
    base: BaseModel
    stock: Any
    vocabulary: Vocabulary

    @property
    def device(self) -> torch.device:
        return self.base.device

    def goal(self, goal: str) -> str | None:
        """Return ``goal`` where it is meant for this shape on this device."""
        return goal if self.name == GOAL_SHAPE and self.device.type == "cpu" else None

    def engine(self, max_num_seqs: int, *, rank: int = 8, max_loras: int | None = None) -> Engine:
        """Return a new engine over the shared weights."""
        settings = EngineSettings(max_num_seqs=max_num_seqs, max_loras=max_loras)
        return Engine(self.base, settings, rank=rank, vocabulary=self.vocabulary)

    def prompt(self, length: int, seed: int) -> tuple[int, ...]:
        """Return ``length`` random ids that are no special tokens of the tokenizer."""
        assert self.base.renderer is not None
        high = min(self.base.vocab_size, len(self.base.renderer.tokenizer))
        return tuple(torch.randint(high // 2, high, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def load_subject(name: str, device: Device = "auto") -> Subject:
    """Load one of ``SHAPES``.

    Raises:
        InvalidParameter: there is no such shape.
        ModelError: the device cannot be used.
    """
    if name not in SHAPES:
        raise InvalidParameter("model", name, ", ".join(SHAPES))
    label, config = SHAPES[name]
    if config is not None:
        return random_subject(name, label, config, device)
    base = load_base(name, device=device, settings=EngineSettings())
    return _subject(name, label, base)


def random_subject(name: str, label: str, config: PreTrainedConfig, device: Device = "auto") -> Subject:
    """Build a model of this shape with random weights, fp32 on a CPU and bf16 on a GPU; the tokenizer is pocket's."""
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    torch.manual_seed(0)
    module = _module(config).to(torch.bfloat16 if on_gpu else torch.float32).to("cuda" if on_gpu else "cpu")
    base = BaseModel(module, base_digest=hashlib.sha256(name.encode()).hexdigest())
    base.renderer = Renderer.from_pretrained(pocket.path(), max_model_len=base.max_model_len)
    return _subject(name, label, base)


def twin(base: BaseModel) -> Any:
    """Return the model in transformers' own layers, on the very weights of ``base``; no token ends its replies."""
    module = _module(base.module.config).to(base.dtype).to(base.device).requires_grad_(False)
    weights = dict(base.module.named_parameters())
    for name, parameter in module.named_parameters():
        parameter.data = weights[name].data
    # Otherwise `generate` fills in what the model's own configuration calls an end token.
    module.generation_config = GenerationConfig(eos_token_id=None, bos_token_id=None, pad_token_id=0)
    return module.eval()


def _subject(name: str, label: str, base: BaseModel) -> Subject:
    assert base.renderer is not None
    base.renderer.end_ids = frozenset()
    return Subject(name, label, base, twin(base), Folded(base.renderer))


def _module(config: PreTrainedConfig) -> Any:
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
