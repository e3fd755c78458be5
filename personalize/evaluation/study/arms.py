"""What is compared: recipes of learning, and references without any."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from personalize.config import Learning, LoraSettings
from personalize.evaluation.study.contexts import MakeContext, last_follow_ups, nothing, told
from personalize.learner import Recipe

UNTRAINED = "-"
"""Digest of every arm that never updates: its results outlive a change of the recipe."""

REVISION = 1
"""Counts up when the same recipe begins to learn something else, so that what was measured before counts no more."""
ADDED = {("teacher_prefix", "own"), ("moot_share", None)}
"""Fields that recipes did not always have, at the value that changes nothing: what was measured before still counts."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to personalize.

    Attributes:
        name: names the arm in every result.
        recipe: what it changes in the default recipe.
        learning: the service's setting.
        lora: shape of the adapters.
        trains: False for a reference, whose users' follow-ups teach nothing.
        lives: False where follow-ups change nothing at all, so that one measurement is enough.
        context: what stands before every chat.
    """

    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    learning: Learning = "on"
    lora: LoraSettings = field(default_factory=LoraSettings)
    trains: bool = True
    lives: bool = True
    context: MakeContext = nothing

    @property
    def digest(self) -> str:
        """Return 12 hex digits over everything that changes what is learnt."""
        if not self.trains:
            return UNTRAINED
        values = asdict(Recipe.of(self.recipe))
        idle = {"name"} if values["moot_share"] is not None else {"name", "moot_share_back"}
        recipe = {name: value for name, value in values.items() if name not in idle and (name, value) not in ADDED}
        revised = [REVISION] if values["moot_share"] is not None else []  # 1: an earlier wish that asks for more stays
        content = json.dumps([recipe, asdict(self.lora), self.learning, *revised], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def _rank(r: int) -> Arm:
    return Arm(f"rank-{r}", lora=LoraSettings(r=r, lora_alpha=2 * r))


DEFAULT_ARM = "rolling-block"
BASE, ORACLE, LAST = "none", "oracle", "last-k"
RANKS = (1, 2, 4, 16)
"""Ranks to compare with the default one; the scaling lora_alpha / r stays."""

ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(DEFAULT_ARM),
        Arm("always", learning="always"),
        Arm("rolling-block-lapses", {"lapse_nats": 1.0}),
        Arm("rolling-block-all-stand", {"moot_share": None}),
        Arm("rolling-block-live-prefix", {"teacher_prefix": "live"}),
        Arm("rolling-block-whole-steps", {"enough_nats": 0.05, "full_step_nats": None, "moot_share": None}),
        Arm("rolling-block-reverse", {"objective": "reverse_kl", "lr": 2e-3, "num_steps": 2, "replay": 3}),
        Arm("rolling-block-unrehearsed", {"rehearse": 0}),
        Arm("rolling-block-top-k", {"objective": "top_k"}),
        Arm("rolling-block-sampled", {"objective": "sampled", "enough_nats": 0.0, "rehearse": 0}),
        Arm("scaled-adapter", {"teacher": "scaled"}),
        Arm("adapter-off", {"gate_nats": None, "block_size": 1, "replay": 0, "rehearse": 0, "num_steps": 1,
             "tolerance": None, "enough_nats": 0.0, "full_step_nats": None}),
        Arm(
            "paper-faithful",
            {"teacher": "live", "objective": "sampled", "centred": True, "gate_nats": None, "block_size": 1,
             "replay": 0, "rehearse": 0, "num_steps": 1, "lr": 1e-3, "tolerance": None,
             "enough_nats": 0.0, "full_step_nats": None},
        ),
        Arm(
            "official-live",
            {"teacher": "live", "objective": "top_k", "gate_nats": None, "block_size": 1, "replay": 0, "rehearse": 0,
             "num_steps": 1, "lr": 1e-3, "eps": 1e-6, "tolerance": None,
             "enough_nats": 0.0, "full_step_nats": None},
        ),
        *(_rank(r) for r in RANKS),
        Arm(BASE, trains=False, lives=False),
        Arm(ORACLE, trains=False, lives=False, context=told),
        Arm(LAST, trains=False, context=last_follow_ups),
    )
}  # fmt: skip
"""The default recipe, what is swapped in it, and the references: no update, told outright, told again in context."""
