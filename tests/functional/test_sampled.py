"""The paper's sampled-token form, against hand arithmetic, TRL, and the exact gradient that it estimates."""

import torch
from torch.nn.functional import log_softmax
from trl.experimental.sdpo import loss_utils as oracle

from personalize.functional import advantages, per_sequence_mean, per_sequence_sum, reverse_kl, sampled_token_loss


def test_advantage_by_hand():
    student = torch.tensor([-1.0, -2.0, -3.0, -1.0])
    teacher = torch.tensor([-2.0, -1.0, -3.0, -6.0])
    sequence = torch.tensor([0, 0, 1, 1])
    assert advantages(student, teacher, sequence).tolist() == [-1.0, 1.0, 0.0, -5.0]
    assert advantages(student, teacher, sequence, centred=True).tolist() == [-1.0, 1.0, 2.5, -2.5]
    assert advantages(student, teacher, sequence, clip=2.0).tolist() == [-1.0, 1.0, 0.0, -2.0]


def test_no_gradient_through_the_advantage():
    student = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantage = advantages(student, torch.tensor([-3.0, -1.0]), torch.tensor([0, 0]))
    assert not advantage.requires_grad
    sampled_token_loss(student, advantage).sum().backward()
    assert student.grad is not None and student.grad.tolist() == [2.0, -1.0]


def test_gradient_agrees_with_trl():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(9, 21, generator=generator).requires_grad_()
    teacher_logits = torch.randn(9, 21, generator=generator)
    ids = torch.randint(21, (9,), generator=generator)
    theirs = oracle.compute_sampled_token_self_distillation_loss(logits, teacher_logits, ids, distillation_alpha=1.0)
    (expected,) = torch.autograd.grad(theirs.sum(), logits)
    student = log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
    teacher = log_softmax(teacher_logits, -1).gather(-1, ids[:, None])[:, 0]
    ours = sampled_token_loss(student, advantages(student, teacher, torch.zeros(9, dtype=torch.long)))
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_expected_gradient_is_that_of_the_reverse_kl():
    """E_{y ~ student}[∇ sampled loss] = ∇ KL(student ‖ teacher), computed exactly by summing over the vocabulary."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(1, 12, generator=generator, dtype=torch.double).requires_grad_()
    teacher = log_softmax(torch.randn(1, 12, generator=generator, dtype=torch.double), -1)
    (exact,) = torch.autograd.grad(reverse_kl(log_softmax(logits, -1), teacher).sum(), logits)
    total = torch.zeros_like(logits)
    for token in range(12):
        student = log_softmax(logits, -1)
        chosen, told = student[:, token], teacher[:, token]
        loss = sampled_token_loss(chosen, advantages(chosen, told, torch.zeros(1, dtype=torch.long)))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        total += student[0, token].exp().detach() * gradient
    torch.testing.assert_close(total, exact)


def test_every_reply_counts_once():
    value, sequence = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([0, 0, 1])
    assert per_sequence_sum(value, sequence).tolist() == [4.0, 10.0]
    assert per_sequence_mean(value, sequence).tolist() == [2.0, 10.0]
