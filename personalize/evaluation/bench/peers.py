"""How transformers and PEFT serve: plain ``generate``, mixed batches by name, and one adapter at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from personalize.evaluation.bench.subject import Subject, twin

ADAPTER_ALPHA = 2
"""Times the rank: lora_alpha, the same as in ``serving.random_adapter``."""


@torch.no_grad()
def generate(module: Any, prompts: Sequence[Sequence[int]], new_tokens: int, **options: Any) -> Tensor:
    """Return ``new_tokens`` drawn ids for each prompt, [N, T], from a batch that is padded on the left.

    Args:
        options: more of transformers' ``GenerationConfig``.

    Raises:
        RuntimeError: a reply ended before its length.
    """
    length = max(map(len, prompts))
    device = next(module.parameters()).device
    ids = torch.tensor([[0] * (length - len(one)) + list(one) for one in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in prompts], device=device)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=new_tokens, pad_token_id=0, **options
    )
    given = module.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, length:]
    if given.shape != (len(prompts), new_tokens):
        raise RuntimeError(f"generate gave {tuple(given.shape)} tokens, not {(len(prompts), new_tokens)}")
    return given


def peft_model(subject: Subject, num_adapters: int, rank: int = 8) -> Any:
    """Return stock PEFT over the shared weights, with small random adapters ``u0``, ``u1``, … on all linears."""
    config = LoraConfig(
        r=rank, lora_alpha=ADAPTER_ALPHA * rank, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(twin(subject.base), config, adapter_name="u0")
    for user in range(1, num_adapters):
        model.add_adapter(f"u{user}", config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.empty(parameter.shape).normal_(std=1e-3, generator=generator))
    return model.eval()


class Decoding:
    """Equal rows of a transformers model past their prompts; ``step`` is a forward and a draw at temperature 1."""

    @torch.no_grad()
    def __init__(self, module: Any, prompts: Sequence[Sequence[int]], **options: Any):
        """Args: options: what every forward of ``module`` is given, such as PEFT's ``adapter_names``."""
        self._module, self._options = module, options
        self._cache = DynamicCache(config=module.config)
        device = next(module.parameters()).device
        self.last = self._draw(torch.tensor([list(one) for one in prompts], device=device))

    @torch.no_grad()
    def step(self) -> None:
        self.last = self._draw(self.last)

    def _draw(self, ids: Tensor) -> Tensor:
        out = self._module(input_ids=ids, past_key_values=self._cache, use_cache=True, **self._options)
        return torch.multinomial(out.logits[:, -1].float().softmax(dim=-1), 1)
