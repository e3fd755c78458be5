"""Judges: hand arithmetic, autograd identities, and TRL's experimental SDPO losses as an independent oracle."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import log_softmax
from trl.experimental.sdpo import loss_utils as oracle

from personalize.functional import forward_kl, reverse_kl, top_k_reverse_kl


def draw(seed: int, n: int = 7, v: int = 33) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, v, generator=generator) * 3, torch.randn(n, v, generator=generator) * 3)


def test_by_hand():
    student = torch.tensor([[0.5, 0.25, 0.25]]).log()
    teacher = torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert forward_kl(student, teacher).item() == pytest.approx(0.25 * math.log(2))
    assert reverse_kl(student, teacher).item() == pytest.approx(0.25 * math.log(2))
    skewed = torch.tensor([[0.7, 0.2, 0.1]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.7) + 0.25 * math.log(0.25 / 0.2) + 0.25 * math.log(0.25 / 0.1)
    assert reverse_kl(student, skewed).item() == pytest.approx(by_hand, abs=1e-6)
    other = 0.7 * math.log(0.7 / 0.5) + 0.2 * math.log(0.2 / 0.25) + 0.1 * math.log(0.1 / 0.25)
    assert forward_kl(student, skewed).item() == pytest.approx(other, abs=1e-6)


def test_top_one_by_hand():
    student = torch.tensor([[0.5, 0.25, 0.25]]).log()
    teacher = torch.tensor([[0.25, 0.5, 0.25]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert top_k_reverse_kl(student, teacher, 1).item() == pytest.approx(by_hand, abs=1e-6)


def test_zero_probability_adds_nothing():
    student = torch.tensor([[1.0, 0.0]]).log()
    teacher = torch.tensor([[0.5, 0.5]]).log()
    assert reverse_kl(student, teacher).item() == pytest.approx(math.log(2))
    assert forward_kl(student, student).item() == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_same_distribution_is_zero_with_zero_gradient(seed: int):
    logits, _ = draw(seed)
    logits.requires_grad_()
    log_p = log_softmax(logits, -1)
    for loss in (forward_kl(log_p, log_p), reverse_kl(log_p, log_p), top_k_reverse_kl(log_p, log_p, 5)):
        assert loss.abs().max() < 1e-6
        (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
        assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("seed", range(5))
def test_gradients_are_the_closed_forms(seed: int):
    logits, teacher_logits = draw(seed)
    logits.requires_grad_()
    student, teacher = log_softmax(logits, -1), log_softmax(teacher_logits, -1)
    p, q = student.exp(), teacher.exp()
    (forward,) = torch.autograd.grad(forward_kl(student, teacher).sum(), logits, retain_graph=True)
    torch.testing.assert_close(forward, p - q, atol=1e-5, rtol=1e-4)
    (reverse,) = torch.autograd.grad(reverse_kl(student, teacher).sum(), logits, retain_graph=True)
    ratio = student - teacher
    torch.testing.assert_close(reverse, p * (ratio - (p * ratio).sum(-1, keepdim=True)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_top_k_grows_to_the_whole(seed: int):
    student, teacher = (log_softmax(x.double(), -1) for x in draw(seed))
    whole = reverse_kl(student, teacher)
    parts = [top_k_reverse_kl(student, teacher, k) for k in (1, 4, 16, 32, 33)]
    for smaller, larger in itertools.pairwise(parts):
        assert (larger - smaller).min() > -1e-6, "merging tokens can only lose divergence"
    torch.testing.assert_close(parts[-1], whole)
    assert (parts[0] >= -1e-9).all()


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_trl(seed: int):
    student_logits, teacher_logits = draw(seed)
    student, teacher = log_softmax(student_logits, -1), log_softmax(teacher_logits, -1)
    full = oracle.compute_full_logit_self_distillation_loss
    torch.testing.assert_close(
        forward_kl(student, teacher), full(student_logits, teacher_logits, distillation_alpha=0.0)
    )
    torch.testing.assert_close(
        reverse_kl(student, teacher), full(student_logits, teacher_logits, distillation_alpha=1.0)
    )
    for k in (1, 5, 20):
        theirs = oracle.compute_topk_self_distillation_loss(
            student_logits, teacher_logits, distillation_topk=k, distillation_alpha=1.0, distillation_add_tail=True
        )
        torch.testing.assert_close(top_k_reverse_kl(student, teacher, k), theirs)


@pytest.mark.parametrize("k", [0, -1, 34])
def test_k_outside_the_vocabulary_is_refused(k: int):
    student, teacher = (log_softmax(x, -1) for x in draw(0))
    with pytest.raises(ValueError, match=f"k = {k}.*1 to 33"):
        top_k_reverse_kl(student, teacher, k)
