"""Random-weight models of the supported families, small enough for a test."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen3Config,
)

from personalize.model.base import BaseModel
from personalize.model.digest import module_digest
from personalize.model.lora import LoraTensors, initial_lora

VOCAB = 160
_SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=256,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    initializer_range=0.2,
)
_GROUPED = dict(_SIZES, num_key_value_heads=2)

CONFIGS = {
    "llama": lambda: LlamaConfig(**_GROUPED, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**_GROUPED, head_dim=8),
    "mistral": lambda: MistralConfig(**_GROUPED, sliding_window=6),
    "gemma3": lambda: Gemma3TextConfig(
        **_GROUPED,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
        final_logit_softcapping=20.0,
    ),
    "phi3": lambda: Phi3Config(**_GROUPED),
    "olmo2": lambda: Olmo2Config(**_GROUPED),
    "gpt_neox": lambda: GPTNeoXConfig(**_SIZES),
}
FAMILIES = tuple(CONFIGS)


def tiny_module(family: str = "llama", seed: int = 0):
    """Return a fresh transformers model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation="sdpa")
    return module.float().eval()


def tiny_base(family: str = "llama", seed: int = 0, **changes) -> BaseModel:
    module = tiny_module(family, seed)
    return BaseModel(module, base_digest=module_digest(module), **changes)


def random_adapter(base: BaseModel, seed: int, *, r: int = 4, scale: float = 0.3, only: str = "") -> LoraTensors:
    """Return an adapter with a visible effect; ``only`` keeps the modules whose names contain it."""
    shapes = {name: shape for name, shape in base.targets.items() if only in name}
    adapter = initial_lora(shapes, r=r, lora_alpha=2 * r, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for tensor in adapter.b.values():
        tensor.normal_(std=scale, generator=generator)
    return adapter


def random_ids(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCAB, shape, generator=torch.Generator().manual_seed(seed))
