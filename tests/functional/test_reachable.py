"""Weights by hand: a loop over every reply as the judge."""

import torch

from personalize.functional import reachable


def by_hand(teacher, target, sequence, tolerance):
    weights = []
    for i in range(len(target)):
        weight = 1.0
        for j in range(i):
            if sequence[j] == sequence[i]:
                p = teacher[j].exp()
                weight *= min(1.0, tolerance * float(p[target[j]] / p.max()))
        weights.append(weight)
    return torch.tensor(weights)


def test_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    teacher = (4 * torch.randn(12, 7, generator=generator)).log_softmax(-1)
    target = torch.randint(7, (12,), generator=generator)
    sequence = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2])
    for tolerance in (1.0, 10.0, 1e9):
        found = reachable(teacher, target, sequence, tolerance)
        assert torch.allclose(found, by_hand(teacher, target, sequence, tolerance), atol=1e-6)


def test_a_reply_that_the_teacher_would_give_counts_whole_and_a_break_ends_it():
    teacher = torch.full((4, 3), 0.01)
    teacher[:, 0] = 0.98
    teacher = teacher.log()
    sequence = torch.zeros(4, dtype=torch.long)
    assert reachable(teacher, torch.tensor([0, 0, 0, 0]), sequence, 10.0).tolist() == [1.0] * 4
    weights = reachable(teacher, torch.tensor([0, 1, 0, 0]), sequence, 10.0)
    assert weights[:2].tolist() == [1.0, 1.0] and weights[2:].max() < 0.11
