"""What hindsight does to the tokens of a reply: the passes of learning, without learning.

Shape letters: N trained positions of all replies, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from personalize.config import LoraSettings
from personalize.errors import ContextTooLong
from personalize.evaluation.calibration.sampling import Answer
from personalize.evaluation.calibration.wishes import Place, first_sentence_end
from personalize.learner.batch import collate
from personalize.learner.gate import hindsight_gap
from personalize.learner.lesson import row, told_row
from personalize.learner.passes import reply_log_probs
from personalize.learner.probes import Probes
from personalize.model.base import BaseModel
from personalize.model.folder import new_adapter
from personalize.model.rows import AdapterRows
from personalize.types import Experience

_MAX_NUMBERS = 1 << 25
"""Most elements of one [N, V] tensor: 128 MiB in fp32; a handful of them live at a time."""
_TIE_NATS, _COARSE_TIE_NATS = 0.01, 0.25
"""How far below the best token a greedily served one may lie, in fp32 and below: rounding depends on batch shapes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reply, read with and without its follow-up.

    Attributes:
        advantages: log π(y_i | x, o) − log π(y_i | x) of every trained token, in nats.
        signal: what the gate looks at: the largest KL(told ‖ plain) of a position, in nats.
    """

    advantages: tuple[float, ...]
    signal: float

    @property
    def size(self) -> float:
        """Mean |A| over the reply."""
        return fmean(map(abs, self.advantages))


def read(base: BaseModel, experiences: Sequence[Experience]) -> tuple[Reading, ...]:
    """Return one reading per turn; every reply needs a trained token.

    Raises:
        ContextTooLong: with the block a prompt leaves no room for a reply.
    """
    return tuple(reading for part in _portions(base, experiences) for reading in _read(base, part))


def _read(base: BaseModel, experiences: Sequence[Experience]) -> Iterator[Reading]:
    plain = collate([row(turn) for turn in experiences], base.device)
    told = collate([told_row(base, turn, [turn]) for turn in experiences], base.device)
    plain_NV, told_NV = reply_log_probs(base, plain, None), reply_log_probs(base, told, None)
    gap_N = hindsight_gap(plain_NV, told_NV)
    target_N1 = plain.target_ids[:, None]
    advantage_N = (told_NV.gather(-1, target_N1) - plain_NV.gather(-1, target_N1))[:, 0]
    for place in range(len(experiences)):
        mine = plain.row == place
        yield Reading(tuple(advantage_N[mine].tolist()), float(gap_N[mine].max()))


def _portions(base: BaseModel, experiences: Sequence[Experience]) -> Iterator[Sequence[Experience]]:
    """Cut ``experiences`` so that the log-probabilities of a portion stay small."""
    longest = max((len(turn.completion_ids) for turn in experiences), default=1)
    size = max(1, _MAX_NUMBERS // (base.vocab_size * longest))
    yield from (experiences[start : start + size] for start in range(0, len(experiences), size))


def reaches(base: BaseModel, follow_ups: Sequence[str]) -> Mapping[str, float]:
    """Return follow-up -> how far it moves the base's answers to other questions, in nats; see ``Probes.reach``.

    Empty where the context is too short for those questions alone.
    """
    try:
        probes = Probes.of(base)
    except ContextTooLong:
        return {}
    texts = tuple(dict.fromkeys(follow_ups))
    num_tokens = sum(len(row.completion_ids) for row in probes.rows)
    size = max(1, _MAX_NUMBERS // (base.vocab_size * num_tokens))
    found = [nats for start in range(0, len(texts), size) for nats in probes.reach(base, texts[start : start + size])]
    return dict(zip(texts, found, strict=True))


def agreement(base: BaseModel, greedy: Sequence[Answer]) -> float:
    """Return the share of greedily served tokens that the learner's pass finds best at their own position too.

    Anything but (nearly) 1 means that serving and learning do not see the same reply: a shift by one, another prompt.
    """
    batch = collate([row(answer.followed_by("")) for answer in greedy], base.device)
    log_probs_NV = reply_log_probs(base, batch, None)
    behind_N = log_probs_NV.max(-1).values - log_probs_NV.gather(-1, batch.target_ids[:, None])[:, 0]
    tie = _TIE_NATS if base.dtype == torch.float32 else _COARSE_TIE_NATS
    return float((behind_N <= tie).float().mean())


def new_adapter_change(base: BaseModel, answers: Sequence[Answer], lora: LoraSettings) -> float:
    """Return the largest change of a log-probability by an adapter that has learned nothing; it must be 0."""
    batch = collate([row(answer.followed_by("")) for answer in answers], base.device)
    rows = AdapterRows.of([new_adapter(base, lora, seed=0)], [0] * len(answers))
    change_NV = reply_log_probs(base, batch, rows) - reply_log_probs(base, batch, None)
    return float(change_NV.abs().max())


def layer_gain(base: BaseModel) -> float:
    """Return how much the median layer stretches white inputs: ‖W‖ / √d_out, over the layers that adapters change.

    It relates a step's size to the layer that it changes: an update of the same α·lr moves a layer of gain 1 five
    times as far, relative to what it computes, as one of gain 5.
    """
    gains: list[Tensor] = []
    for name, (_, d_out) in base.targets.items():
        weight: Tensor = base.module.get_submodule(name).weight
        gains.append(weight.detach().float().norm() / d_out**0.5)
    return float(torch.stack(gains).median())


def blamed(base: BaseModel, answer: Answer, place: Place) -> tuple[int, ...]:
    """Return which trained tokens of a reply went against a wish that shows at ``place``.

    Empty where none can be named: a reply that ran into its cap has no end to blame.
    """
    assert base.renderer is not None
    ids = answer.trained_ids
    if place == "end":
        return (len(ids) - 1,) if ids and ids[-1] in base.renderer.end_ids else ()
    ends = [len(base.renderer.decode(ids[: count + 1])) for count in range(len(ids))]
    text = base.renderer.decode(ids)
    low, high = _first_word(text) if place == "start" else (first_sentence_end(text), len(text))
    starts = [0, *ends[:-1]]
    return tuple(n for n, (start, end) in enumerate(zip(starts, ends, strict=True)) if start < high and low < end)


def _first_word(text: str) -> tuple[int, int]:
    start = len(text) - len(text.lstrip())
    return start, start + len((text.split() or [""])[0])
