"""One simulated life under one arm: what is run, and under which key it is measured."""

from dataclasses import dataclass
from typing import Any

from personalize.evaluation.study.arms import Arm
from personalize.evaluation.study.profiles import Profile
from personalize.evaluation.study.results import Results
from personalize.evaluation.study.scripts import Script


@dataclass(frozen=True, slots=True)
class Cell:
    """One user of the service.

    Attributes:
        arm: how it is personalized.
        script: what happens.
        profile: what the user wants.
        seed: chooses topics, wordings and draws.
    """

    arm: Arm
    script: Script
    profile: Profile
    seed: int

    @property
    def user(self) -> str:
        """Return the external id; no two cells share one."""
        return f"{self.arm.name}/{self.script.name}/{self.profile.name}/{self.seed}"

    def key(self, model: str, turn: int) -> dict[str, Any]:
        """Return the key of the measurement at ``turn``.

        Args:
            model: digest of the base model.
        """
        return {
            "recipe": self.arm.digest, "model": model, "arm": self.arm.name, "control": self.script.name,
            "profile": self.profile.name, "seed": self.seed, "turn": turn,
        }  # fmt: skip

    def missing(self, results: Results, model: str) -> list[int]:
        """Return the turns that are not measured yet."""
        return [turn for turn in self.script.measured if not results.has(self.key(model, turn))]
