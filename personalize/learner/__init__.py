"""From a follow-up to a new adapter version: gate, hindsight block, teacher, a few bounded steps, guards."""

from personalize.learner.hindsight import HindsightLearner
from personalize.learner.recipe import Recipe

__all__ = ["HindsightLearner", "Recipe"]
