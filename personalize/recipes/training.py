"""Train pocket for a number of tokens; a run can be stopped and taken up again.

Targets are the replies and their end tokens. Hidden matrices move by Muon, embeddings and norms by AdamW. The tokens
seen set the schedule, so every machine runs the same course, however fast it is.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from personalize.model.probes import write_probes
from personalize.recipes.batches import Batch, Batches
from personalize.recipes.muon import Muon
from personalize.recipes.probes import questions
from personalize.recipes.schedule import rate
from personalize.recipes.tokens import Target

_MATRIX_LR = 5e-3
_OTHER_LR = 2.5e-3
_MAX_NORM = 1.0
_STATE = "state.pt"


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    pool: int = 0
    elapsed_s: float = 0.0
    num_tokens: int = 0
    loss: float = float("nan")
    """Running mean over about 30 steps."""

    @property
    def tokens_per_s(self) -> float:
        """Return the mean speed of the run."""
        return self.num_tokens / max(self.elapsed_s, 1e-9)


class Training:
    """One run: the model, its optimizers and where they stand."""

    def __init__(self, model: LlamaForCausalLM, batches: Batches, *, num_tokens: int, lr_scale: float = 1.0) -> None:
        self.model = model
        self.progress = Progress()
        self._batches = batches
        self._num_tokens = num_tokens
        self._optimizers = _optimizers(model, lr_scale)

    @property
    def share(self) -> float:
        """Return the share of the course that is over."""
        return min(1.0, self.progress.num_tokens / self._num_tokens)

    @property
    def eta_s(self) -> float:
        """Return the training time that is left at the mean speed so far."""
        return max(0.0, self._num_tokens - self.progress.num_tokens) / max(self.progress.tokens_per_s, 1.0)

    def run(self) -> Iterator[Progress]:
        """Step to the end of the course, and yield after every step."""
        source = self._batches.starting_at(self.progress.pool)
        while self.share < 1:
            started = time.perf_counter()
            self.progress.pool, batch = next(source)
            loss = self._step(batch)
            self._note(loss, batch.ids.numel(), time.perf_counter() - started)
            yield self.progress

    def save(self, folder: Path) -> None:
        """Write everything that `resume` needs; a broken write leaves the last one whole."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "progress": asdict(self.progress),
        }
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / f"{_STATE}.part")
        (folder / f"{_STATE}.part").replace(folder / _STATE)
        (folder / "progress.json").write_text(json.dumps(asdict(self.progress)))

    def resume(self, folder: Path) -> bool:
        """Take up the run saved in ``folder``, from the pool of batches it was in; return whether there was one."""
        if not (folder / _STATE).exists():
            return False
        state = torch.load(folder / _STATE, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            _load_moments(optimizer, saved)
        self.progress = Progress(**state["progress"])
        return True

    def _step(self, batch: Batch) -> float:
        factor = rate(self.progress.step, self.share)
        loss = reply_loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_NORM)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _note(self, loss: float, num_tokens: int, seconds: float) -> None:
        now = self.progress
        now.loss = loss if now.step == 0 else now.loss + (loss - now.loss) / min(30, now.step + 1)
        now.step += 1
        now.num_tokens += num_tokens
        now.elapsed_s += seconds


def reply_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the weighted mean cross entropy of the targets; logits are computed for them only.

    Of a word among words nothing is learnt about what else might stand there, and of any word not which one.
    """
    weights = batch.weights[:, 1:]
    chosen = weights > 0
    hidden_BTD = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits_NV, ids_N = model.lm_head(hidden_BTD[:, :-1][chosen]), batch.ids[:, 1:][chosen]
    targets_N = batch.targets[:, 1:][chosen]
    any_word_N = (targets_N == Target.ANY_WORD).nonzero()[:, 0]
    all_M = logits_NV[any_word_N].logsumexp(-1)
    logits_NV[(targets_N != Target.TOKEN).nonzero(), batch.style_ids] = -torch.inf
    losses_N = F.cross_entropy(logits_NV, ids_N, reduction="none")
    losses_N = losses_N.index_copy(0, any_word_N, all_M - logits_NV[any_word_N].logsumexp(-1))
    weights_N = weights[chosen]
    return (losses_N * weights_N).sum() / weights_N.sum()


def export(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, *, sharpness: float = 1.0
) -> None:
    """Write a folder that ``from_pretrained`` opens: fp16 weights, a config that says to compute in fp32, and probes.

    Args:
        sharpness: factor on all logits, by way of the final norm's weight: sampling the export at temperature 1 is
            sampling the trained model at temperature 1 / sharpness.
    """
    weights = model.state_dict()
    weights["model.norm.weight"] = weights["model.norm.weight"] * sharpness
    half = {name: tensor.half() for name, tensor in weights.items() if name != "lm_head.weight"}
    model.save_pretrained(folder, state_dict=half)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    write_probes(folder, questions())


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take the saved moments, but keep this program's learning rates: the saved groups hold the stopped run's."""
    rates = [group["base_lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, base_lr in zip(optimizer.param_groups, rates, strict=True):
        group["base_lr"] = base_lr


def _optimizers(model: LlamaForCausalLM, lr_scale: float) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [tensor for name, tensor in named if tensor.ndim == 2 and "embed" not in name]
    others = [tensor for name, tensor in named if tensor.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, _MATRIX_LR * lr_scale),
        torch.optim.AdamW(others, _OTHER_LR * lr_scale, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers
