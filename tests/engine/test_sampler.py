import random
from collections import Counter

import torch

from personalize.engine.sampler import NOT_FINITE, sample
from personalize.engine.sequences import Sequence
from personalize.types import GenerateRequest, SamplingParams


def drawing(seed=0, **params):
    request = GenerateRequest("r", (1,), SamplingParams(**params))
    return Sequence(request=request, detokenizer=None, max_new=1, arrival=0, rng=random.Random(seed))


def reference(logits, params):
    """Probabilities by the definition, one row in plain Python."""
    weights = [float(x) for x in (logits.double() / params.temperature).softmax(-1)]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    if params.top_k:
        order = order[: params.top_k]
    total, kept, mass = sum(weights[i] for i in order), [], 0.0
    for i in order:
        if params.top_p < 1.0 and mass >= params.top_p and kept:
            break
        kept.append(i)
        mass += weights[i] / total
    share = sum(weights[i] for i in kept)
    return {i: weights[i] / share for i in kept}


LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.1, -1.0, -3.0])
CASES = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 3},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 1.3, "top_p": 0.6, "top_k": 4},
    {"temperature": 1.0, "top_p": 1e-6},
]


def test_frequencies_are_the_definition_in_one_mixed_batch():
    num = 2000
    sequences = [drawing(n, **CASES[n % len(CASES)]) for n in range(num * len(CASES))]
    counts = [Counter() for _ in CASES]
    for n, token in enumerate(sample(LOGITS.expand(len(sequences), -1), sequences)):
        counts[n % len(CASES)][token] += 1
    for counter, case in zip(counts, CASES, strict=True):
        expected = reference(LOGITS, SamplingParams(**case))
        assert set(counter) <= set(expected)
        for token, probability in expected.items():
            # five standard deviations of a binomial share
            assert abs(counter[token] / num - probability) <= 5 * (probability * (1 - probability) / num) ** 0.5 + 1e-9


def test_a_draw_does_not_depend_on_the_neighbours():
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    params = [*CASES[:4], {"temperature": 0.0}]
    together = [drawing(n, **case) for n, case in enumerate(params)]
    rounds = [sample(logits, together) for _ in range(20)]
    for n, case in enumerate(params):
        alone = drawing(n, **case)
        assert [tokens[n] for tokens in rounds] == [sample(logits[n : n + 1], [alone])[0] for _ in range(20)]


def test_greedy_takes_the_likeliest_and_small_temperatures_do_not_overflow():
    logits = torch.tensor([[1.0, 5.0, 4.9], [1e30, -1e30, 0.0]])
    for temperature in (0.0, 1e-300, 1e-5, 1e-3):
        assert sample(logits, [drawing(temperature=temperature) for _ in range(2)]) == [1, 0]


def test_a_row_that_is_not_finite_is_named_and_alone():
    nan, inf = float("nan"), float("inf")
    rows = torch.tensor([[0.0, 9.0, 0.0], [0.0, nan, 9.0], [0.0, inf, 0.0], [-inf, 9.0, -inf]])
    for temperature in (0.0, 0.01):
        tokens = sample(rows, [drawing(temperature=temperature) for _ in range(4)])
        assert tokens == [1, NOT_FINITE, NOT_FINITE, 1]
    filtered = sample(rows, [drawing(temperature=0.01, top_p=0.9) for _ in range(4)])
    assert filtered == [1, NOT_FINITE, NOT_FINITE, 1]


def test_tokens_without_probability_are_never_drawn():
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, 500:503] = 0.0
    sequence = drawing(3, temperature=2.0)
    assert {sample(logits, [sequence])[0] for _ in range(200)} == {500, 501, 502}
