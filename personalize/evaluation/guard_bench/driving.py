"""Adapters driven into a behaviour, or shaken until the base is gone: what a collapse is built from.

Shape letters: N trained positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from personalize.config import LoraSettings
from personalize.learner.batch import Row, collate
from personalize.learner.passes import reply_log_probs
from personalize.model.base import BaseModel
from personalize.model.folder import new_adapter
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows

MAX_STEPS = 80
LOOK_EVERY = 4
"""Steps between two looks at what the adapter says by now."""
DAMAGE_NATS = 1.0
"""Mean fall of the log-probability of a sound reply's tokens that counts as damage done by noise."""
MAX_NOISE = 100.0
"""Standard deviation at which a base is beyond damage by noise: one that knows nothing has nothing to lose."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """A broken adapter and how it came to be.

    Attributes:
        version: what the guards have to judge.
        parent: the same one small step before, as in a slow drift; the hardest case for a guard of single steps.
        loss: of the last step.
        grad_norm: of the last step.
        built: it is as broken as it was meant to be.
    """

    version: LoraTensors
    parent: LoraTensors
    loss: float = 0.0
    grad_norm: float = 0.0
    built: bool = True


def driven(
    base: BaseModel, rows: Callable[[], Sequence[Row]], shows: Callable[[LoraTensors], bool], seed: int
) -> Collapse:
    """Train a new adapter by maximum likelihood until it shows what it is driven to.

    Args:
        rows: returns the replies of the next step.
        shows: whether a version does it to questions that no step was about.
    """
    found = _trained(base, rows, seed, lr=1e-2, max_steps=MAX_STEPS, shows=shows)
    return replace(found, built=shows(found.version))


def diverged(base: BaseModel, rows: Sequence[Row], seed: int, *, lr: float, steps: int) -> Collapse:
    """Train a new adapter on sound replies at a rate at which nothing can be learnt."""
    found = _trained(base, lambda: rows, seed, lr=lr, max_steps=steps)
    return replace(found, built=damage(base, rows, found.version) >= DAMAGE_NATS)


def shaken(base: BaseModel, rows: Sequence[Row], seed: int, factor: float) -> Collapse:
    """Fill B with noise, ``factor`` times as much as it takes to damage the replies in ``rows``."""
    generator = torch.Generator().manual_seed(seed)
    noise = new_adapter(base, LoraSettings(), seed).copy()
    for b in noise.b.values():
        b.copy_(torch.randn(b.shape, generator=generator))
    scale = 1e-2
    while (done := damage(base, rows, _scaled(noise, scale))) < DAMAGE_NATS and scale < MAX_NOISE:
        scale *= 2.0
    version, parent = _scaled(noise, factor * scale), _scaled(noise, 0.95 * factor * scale)
    return Collapse(version, parent, built=done >= DAMAGE_NATS)


def poisoned(base: BaseModel, seed: int, value: float) -> Collapse:
    """Put one ``value`` that is not finite somewhere into a new adapter."""
    generator = torch.Generator().manual_seed(seed)
    parent = new_adapter(base, LoraSettings(), seed).copy()
    version = parent.copy()
    names = list(version.b)
    tensor = version.b[names[int(torch.randint(len(names), (), generator=generator))]].view(-1)
    tensor[int(torch.randint(len(tensor), (), generator=generator))] = value
    return Collapse(version, parent)


def damage(base: BaseModel, rows: Sequence[Row], tensors: LoraTensors) -> float:
    """Return by how many nats per token ``tensors`` make the replies in ``rows`` less likely; inf where not finite."""
    before_N, after_N = _sampled(base, rows, None), _sampled(base, rows, tensors)
    fall = float((before_N - after_N).mean())
    return fall if fall == fall else float("inf")


def _trained(
    base: BaseModel,
    rows: Callable[[], Sequence[Row]],
    seed: int,
    *,
    lr: float,
    max_steps: int,
    shows: Callable[[LoraTensors], bool] = lambda _: False,
) -> Collapse:
    """Return what ``max_steps`` make of a new adapter; fewer where a version ``shows`` what is wanted."""
    tensors = new_adapter(base, LoraSettings(), seed).copy(requires_grad=True)
    parameters = list(tensors.parameters())
    optimizer = torch.optim.Adam(parameters, lr=lr)
    found = Collapse(tensors.copy(), tensors.copy())
    for step in range(max_steps):
        parent = tensors.copy()
        with torch.enable_grad():
            loss = -_sampled(base, rows(), tensors, grad=True).mean()
            loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found = Collapse(tensors.copy(), parent, float(loss.detach()), norm)
        if (step + 1) % LOOK_EVERY == 0 and shows(found.version):
            break
    return found


def _sampled(base: BaseModel, rows: Sequence[Row], tensors: LoraTensors | None, *, grad: bool = False) -> Tensor:
    """Return the log-probability of every token of the replies, [N]."""
    batch = collate(rows, base.device)
    adapters = None if tensors is None else AdapterRows.of([tensors], [0] * len(rows))
    log_probs_NV = reply_log_probs(base, batch, adapters, grad=grad)
    return log_probs_NV.gather(-1, batch.target_ids[:, None])[:, 0]


def _scaled(tensors: LoraTensors, factor: float) -> LoraTensors:
    return LoraTensors(tensors.r, tensors.lora_alpha, tensors.a, {name: factor * b for name, b in tensors.b.items()})
