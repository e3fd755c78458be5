"""What one update did to the reply that it was about: signals per token, drift and norms.

Nothing is remembered for this while learning: the parent, the version, the base and the teacher read the stored reply
again, one pass each. The teacher is the one of the first step, told what it was told then.

Shape letters: N trained positions, V vocabulary.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from personalize.errors import ContextTooLong
from personalize.functional import advantages, reverse_kl
from personalize.learner.batch import Batch, Row, collate
from personalize.learner.gate import hindsight_gap
from personalize.learner.guards import delta_norm
from personalize.learner.lesson import row, told_row
from personalize.learner.passes import reply_log_probs
from personalize.learner.recipe import Recipe
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.types import Drift, Experience, ExplainRequest, Norms, TokenSignal, UpdateEffect, Window

T = TypeVar("T")
Measured = Mapping[str, Tensor]
"""Field of ``TokenSignal`` -> [N]."""


def effect_of(
    base: BaseModel, recipe: Recipe, request: ExplainRequest, parent: LoraTensors | None, version: LoraTensors
) -> Generator[Window, None, UpdateEffect]:
    """Return what an update did; yields after every pass, so that replies go on in between.

    Args:
        parent: the weights of ``request.parent``; None for the base model.
        version: the weights of ``request.adapter``.

    Raises:
        ContextTooLong: the reply and what the teacher is told do not fit the context any more.
    """
    parent = None if parent is None else parent.copy(device=base.device)
    version = version.copy(device=base.device)
    experience = request.experience
    plain = collate([row(experience)], base.device)
    before_NV = _pass(base, plain, parent)
    yield Window()
    told = collate([_fitting(base, told_row(base, experience, [experience]))], base.device)
    measured = {
        "log_prob": _sampled(before_NV, plain),
        "hindsight_kl": hindsight_gap(before_NV, _pass(base, told, parent)),
    }
    yield Window()
    if request.block:
        taught = collate([_fitting(base, told_row(base, experience, request.block))], base.device)
        teacher_N = _sampled(_pass(base, taught, _teacher(recipe, parent)), taught)
        measured["advantage"] = advantages(measured["log_prob"], teacher_N, plain.row)
        yield Window()
    after_NV = _pass(base, plain, version)
    measured["change"] = _sampled(after_NV, plain) - measured["log_prob"]
    measured["kl"] = reverse_kl(after_NV, before_NV)
    yield Window()
    base_NV = before_NV if parent is None else _pass(base, plain, None)
    drift = _drift(measured["kl"], before_NV, after_NV, base_NV)
    return UpdateEffect(_tokens(experience, measured), drift, _norms(parent, version), recipe.teacher, recipe.name)


def windows(work: Generator[Window, None, T], take: Callable[[T], None]) -> Generator[Window, None, None]:
    """Yield the windows of ``work`` and hand its result to ``take``; the last window carries no reports."""
    take((yield from work))
    yield Window(())


def _pass(base: BaseModel, batch: Batch, weights: LoraTensors | None) -> Tensor:
    """Return log-probabilities [N, V] of the one reply in ``batch``."""
    return reply_log_probs(base, batch, None if weights is None else AdapterRows.of([weights]))


def _sampled(log_probs_NV: Tensor, batch: Batch) -> Tensor:
    """Return the log-probability of every token that was sampled, [N]."""
    return log_probs_NV.gather(-1, batch.target_ids[:, None])[:, 0]


def _teacher(recipe: Recipe, parent: LoraTensors | None) -> LoraTensors | None:
    """Return the weights that the recipe's teacher has before the first step."""
    if recipe.teacher == "base" or parent is None:
        return None
    factor = 1.0 if recipe.teacher == "live" else recipe.teacher_scale
    return replace(parent, lora_alpha=parent.lora_alpha * factor)


def _fitting(base: BaseModel, told: Row) -> Row:
    num_tokens = len(told.prompt_ids) + len(told.completion_ids)
    if num_tokens > base.max_model_len:
        raise ContextTooLong(f"with hindsight the turn has {num_tokens} tokens; at most {base.max_model_len} fit")
    return told


def _drift(kl_N: Tensor, before_NV: Tensor, after_NV: Tensor, base_NV: Tensor) -> Drift:
    return Drift(
        to_parent=_number(kl_N.sum()),
        to_base=_number(reverse_kl(after_NV, base_NV).sum()),
        before=_number(reverse_kl(before_NV, base_NV).sum()),
        num_tokens=len(kl_N),
    )


def _norms(parent: LoraTensors | None, version: LoraTensors) -> Norms:
    return Norms(
        change=round(delta_norm(version, parent or _silent(version)), 6),
        parent=0.0 if parent is None else round(delta_norm(parent, _silent(parent)), 6),
        version=round(delta_norm(version, _silent(version)), 6),
    )


def _silent(like: LoraTensors) -> LoraTensors:
    """Return an adapter of the same shapes that changes nothing."""
    return replace(like, b={name: torch.zeros_like(tensor) for name, tensor in like.b.items()})


def _tokens(experience: Experience, measured: Measured) -> tuple[TokenSignal, ...]:
    """Return a signal for every token of the reply; numbers stand at the trained ones only."""
    columns = {name: _numbers(values) for name, values in measured.items()}
    tokens, position = [], 0
    for token_id, trained in zip(experience.completion_ids, experience.completion_mask, strict=True):
        here: dict[str, Any] = {name: values[position] for name, values in columns.items()} if trained else {}
        tokens.append(TokenSignal(token_id, **here))
        position += trained
    return tuple(tokens)


def _numbers(values_N: Tensor) -> Sequence[float]:
    return [round(value, 6) for value in values_N.tolist()]


def _number(value: Tensor) -> float:
    return round(float(value), 6)
