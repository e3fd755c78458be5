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


def test_a_reply_counts_the_same_whoever_stands_before_it():
    generator = torch.Generator().manual_seed(0)
    mine = (1.5 * torch.randn(64, 7, generator=generator)).log_softmax(-1)
    target = torch.randint(7, (64,), generator=generator)
    alone = reachable(mine, target, torch.zeros(64, dtype=torch.long), 2.0)
    broken = torch.tensor([0.0, *[-12.0] * 6]).log_softmax(-1).expand(16_000, 7)
    for before in (broken, torch.full((3, 7), torch.nan)):
        told, other = torch.cat([before, mine]), torch.ones(len(before), dtype=torch.long)
        sequence = torch.cat([torch.zeros_like(other), torch.ones(64, dtype=torch.long)])
        assert torch.equal(reachable(told, torch.cat([other, target]), sequence, 2.0)[len(before) :], alone)


def test_a_token_that_the_teacher_rules_out_ends_the_reply_and_is_a_number():
    teacher = torch.tensor([[0.0, -torch.inf], [-0.7, -0.7], [-0.7, -0.7]])
    target, sequence = torch.tensor([1, 0, 0]), torch.zeros(3, dtype=torch.long)
    assert reachable(teacher, target, sequence, 10.0).tolist() == [1.0, 0.0, 0.0]
    assert reachable(teacher[:0], target[:0], sequence[:0], 10.0).tolist() == []
