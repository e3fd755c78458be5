"""What an update has to compute, and how fast this machine multiplies matrices of the model's shapes.

    FLOPs needed = 2P·(teacher tokens) + 4P·(reply tokens) + head at reply positions + attention + the guards' passes

P counts the weights of the decoder's linear layers. Nothing of the teacher is cached today, so all its tokens count;
the student's prefix does not: whoever served the reply has computed it. LoRA's own products are left out (about 1 %).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from personalize.evaluation.bench.lessons import num_student_tokens, num_teacher_tokens
from personalize.evaluation.bench.samples import elapsed_ms
from personalize.evaluation.bench.subject import Subject
from personalize.learner import HindsightLearner
from personalize.model.base import BaseModel
from personalize.types import Experience

_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of passes through one model."""

    per_token: int
    per_position: int
    per_pair: int

    @classmethod
    def of(cls, base: BaseModel) -> "Cost":
        config = base.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        weights = sum(d_in * d_out for d_in, d_out in base.targets.values())
        # Scores and values: two products of head_dim per query, key and head, in every layer.
        pairs = 4 * config.num_hidden_layers * config.num_attention_heads * head_dim
        return cls(2 * weights, 2 * config.hidden_size * base.vocab_size, pairs)

    def forward(self, tokens: int, positions: int, before: int = 0) -> int:
        """Return one row's pass over ``tokens`` behind ``before`` others, with the head at ``positions`` of them."""
        pairs = tokens * before + tokens * (tokens + 1) // 2
        return self.per_token * tokens + self.per_position * positions + self.per_pair * pairs

    def backward(self, tokens: int, positions: int, before: int) -> int:
        """Return the way back: a product per weight matrix (the weights are frozen) and four for attention's two."""
        pairs = tokens * before + tokens * (tokens + 1) // 2
        return self.per_token * tokens + self.per_position * positions + 2 * self.per_pair * pairs


def flops_needed(base: BaseModel, turn: Experience, learner: HindsightLearner) -> int:
    """Return the FLOPs of one inner step on one turn with the guards of its publish."""
    cost, reply = Cost.of(base), sum(turn.completion_mask)
    prefix, window = num_student_tokens(turn)
    teacher = cost.forward(num_teacher_tokens(base, turn), reply)
    student = cost.forward(window, reply, prefix) + cost.backward(window, reply, prefix)
    guards = cost.forward(prefix + window, reply)  # the new version on the reply: other weights, so another prefix
    for one in learner.canaries.rows:
        guards += cost.forward(len(one.prompt_ids) + len(one.completion_ids) - 1, len(one.completion_ids))
    return teacher + student + guards


def gemm_rate(subject: Subject, row_counts: Sequence[int]) -> float:
    """Return the FLOP/s of the fastest of the model's own matrix shapes at these numbers of rows."""
    base = subject.base
    shapes = sorted(set(base.targets.values()) | {(base.config.hidden_size, base.vocab_size)})
    return max(_rate(subject, rows, shape) for rows in sorted(set(row_counts)) for shape in shapes)


def _rate(subject: Subject, rows: int, shape: tuple[int, int]) -> float:
    d_in, d_out = shape
    x = torch.randn(rows, d_in, device=subject.device, dtype=subject.base.dtype)
    weight = torch.randn(d_out, d_in, device=subject.device, dtype=subject.base.dtype)
    torch.nn.functional.linear(x, weight)
    best = min(elapsed_ms(lambda: torch.nn.functional.linear(x, weight), subject.device) for _ in range(_REPEATS))
    return 2 * rows * d_in * d_out / (best / 1000)
