"""What the two classes of guards say of a built collapse."""

from collections.abc import Mapping
from typing import Any

import torch

from personalize.config import LoraSettings
from personalize.evaluation.guard_bench.collapses import KINDS, sound_rows, told
from personalize.evaluation.guard_bench.driving import Collapse
from personalize.functional import reverse_kl
from personalize.learner.batch import collate
from personalize.learner.canaries import Canaries
from personalize.learner.greedy import finished
from personalize.learner.guards import delta_norm, judge
from personalize.learner.passes import reply_log_probs
from personalize.learner.recipe import Recipe
from personalize.learner.review import review_of, verdict
from personalize.model.base import BaseModel
from personalize.model.folder import new_adapter
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.types import AdapterRef, Outcome, ReviewRequest

PREFIX = "review_"
_NOWHERE = AdapterRef(f"u_{0:032x}@1-{0:016x}", "/nowhere")


class Jury:
    """Both classes of guards over one base."""

    def __init__(self, base: BaseModel, recipe: Recipe):
        self.base, self.recipe = base, recipe
        self.canaries = Canaries.of(base)

    def line(self, kind: str, seed: int) -> dict[str, Any]:
        """Build one collapse and return what the guards measure of it."""
        collapse = KINDS[kind].build(self.base, seed)
        fresh = new_adapter(self.base, LoraSettings(), seed)
        review = finished(review_of(self.base, self.recipe, ReviewRequest(_NOWHERE, told(seed)), collapse.version))
        return {
            "built": collapse.built,
            "drifting": self._published(collapse, collapse.parent, seed),
            "at_once": self._published(collapse, fresh, seed),
            "breach": review.breach,
            "review": dict(review.metrics),
        }

    def _published(self, collapse: Collapse, parent: LoraTensors, seed: int) -> dict[str, float | None]:
        """Return the metrics of the guards of every publish, for a step from ``parent``; None where not finite."""
        batch = collate(sound_rows(self.base, seed)[:1], self.base.device)
        with torch.no_grad():
            before_NV = reply_log_probs(self.base, batch, AdapterRows.of([parent]))
            after_NV = reply_log_probs(self.base, batch, AdapterRows.of([collapse.version]))
        metrics = {
            "loss_last": collapse.loss,
            "grad_norm": collapse.grad_norm,
            "delta_norm": delta_norm(collapse.version, parent),
            "reply_kl": float(reverse_kl(after_NV, before_NV).sum()),
            "canary_loss": self.canaries.lost(self.base, [collapse.version])[0],
        }
        return {name: round(value, 6) if abs(value) < float("inf") else None for name, value in metrics.items()}


def refused(metrics: Mapping[str, float | None], recipe: Recipe) -> bool:
    """Tell whether the guards of every publish refuse a step with these metrics."""
    numbers = {name: float("nan") if value is None else value for name, value in metrics.items()}
    return judge(numbers, recipe) is not Outcome.APPLIED


def breach(line: Mapping[str, Any], recipe: Recipe) -> str | None:
    """Return what the review finds wrong, by the limits of ``recipe``."""
    if line["breach"] == "nonfinite":
        return "nonfinite"
    return verdict(recipe, {name.removeprefix(PREFIX): value for name, value in line["review"].items()}).breach
