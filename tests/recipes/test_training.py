"""Training steps: Muon, the schedule, the loss, stopping and going on, export."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from personalize.recipes import training
from personalize.recipes.batches import Batch, Batches
from personalize.recipes.muon import orthogonalized
from personalize.recipes.schedule import DECAY_SHARE, WARM_UP_STEPS, rate
from personalize.recipes.tokens import DialogueEncoder, Target
from personalize.recipes.training import Training, export, reply_loss


def _training(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Training:
    return Training(model, Batches(DialogueEncoder(tokenizer), seed=0, num_tokens=1_200), num_tokens=1_000_000)


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 8, 8)])
def test_orthogonalized_has_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_rate_warms_up_and_decays_to_nothing() -> None:
    assert rate(0, 0.0) == 1 / WARM_UP_STEPS
    assert rate(WARM_UP_STEPS, 1 - DECAY_SHARE) == 1.0
    assert rate(WARM_UP_STEPS, 1 - DECAY_SHARE / 2) == pytest.approx(0.5)
    assert rate(10_000, 1.0) == 0.0


def test_loss_is_of_the_targets_only(model: LlamaForCausalLM) -> None:
    ids = torch.randint(5, 200, (2, 12))
    weights = torch.zeros(2, 12)
    weights[:, 8:] = 1.0
    labels = ids.masked_fill(weights == 0, -100)
    batch = Batch(ids, weights, torch.zeros(2, 12, dtype=torch.int8), torch.tensor([1, 2]))
    assert torch.allclose(reply_loss(model, batch), model(input_ids=ids, labels=labels).loss, atol=1e-5)


def _one_target(target: Target) -> tuple[Batch, int]:
    """Return a batch with one target, and an id that opens a style."""
    ids = torch.randint(5, 200, (1, 6), generator=torch.Generator().manual_seed(0))
    weights, targets = torch.zeros(1, 6), torch.zeros(1, 6, dtype=torch.int8)
    weights[0, 3], targets[0, 3] = 1.0, target
    style = next(i for i in range(5, 200) if i not in ids)
    return Batch(ids, weights, targets, torch.tensor([style])), style


def test_a_word_pushes_nothing_of_another_style_down(model: LlamaForCausalLM) -> None:
    batch, style = _one_target(Target.WORD)
    logits = model(input_ids=batch.ids).logits[0, 2].detach()
    words = logits.index_fill(0, torch.tensor([style]), -torch.inf)
    assert torch.allclose(reply_loss(model, batch), -words.log_softmax(-1)[batch.ids[0, 3]], atol=1e-5)


def test_any_word_is_as_likely_as_nothing_of_another_style(model: LlamaForCausalLM) -> None:
    batch, style = _one_target(Target.ANY_WORD)
    loss = reply_loss(model, batch)
    chance = model(input_ids=batch.ids).logits[0, 2].softmax(-1)[style].detach()
    assert torch.allclose(loss, -(1 - chance).log(), atol=1e-5)
    loss.backward()
    assert all(torch.isfinite(one.grad).all() for one in model.parameters() if one.grad is not None)
    model.zero_grad()


def test_loss_falls(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    losses = [progress.loss for progress in islice(_training(model, tokenizer).run(), 25)]
    assert losses[-1] < losses[0] - 0.03


def test_a_resumed_run_stands_where_it_stopped(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first = _training(model, tokenizer)
    list(islice(first.run(), 3))
    first.save(tmp_path)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(islice(first.run(), 2))
    second = _training(model, tokenizer)
    assert second.resume(tmp_path)
    assert second.progress.step == 3
    assert all(torch.equal(tensor, weights[name]) for name, tensor in second.model.state_dict().items())
    assert not _training(model, tokenizer).resume(tmp_path / "nowhere")


def test_a_resumed_run_has_the_learning_rates_of_the_program(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _training(model, tokenizer).save(tmp_path)
    monkeypatch.setattr(training, "_MATRIX_LR", 1e-4)
    resumed = _training(model, tokenizer)
    assert resumed.resume(tmp_path)
    assert resumed._optimizers[0].param_groups[0]["base_lr"] == 1e-4


def test_export_opens_with_transformers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert opened.dtype == torch.float32
    assert torch.allclose(opened.lm_head.weight, model.lm_head.weight, atol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template
    assert opened.generation_config.eos_token_id == tokenizer.eos_token_id
