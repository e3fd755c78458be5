"""Settings of the learner that come from outside: every one is known and in range, or the caller is told."""

import math

import pytest

from personalize.errors import InvalidParameter
from personalize.learner.recipe import OFFICIAL_LIVE, PAPER, Recipe


def test_a_recipe_is_the_default_with_what_was_said_instead() -> None:
    assert Recipe.of({}) == Recipe()
    assert Recipe.of({"lr": 1e-3, "tolerance": None}) == Recipe(lr=1e-3, tolerance=None)
    assert PAPER.teacher == OFFICIAL_LIVE.teacher == "live"


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidParameter, match=r"recipe = 'learning_rate'.*num_steps"):
        Recipe.of({"learning_rate": 1e-3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1e-3),
        ("lr", "fast"),
        ("lr", math.nan),
        ("num_steps", 0),
        ("num_steps", 2.5),
        ("num_steps", True),
        ("replay", 1_000),
        ("tolerance", 0.5),
        ("gate_nats", -1.0),
        ("beta2", 1.0),
        ("max_delta_norm", -1.0),
        ("teacher", "oracle"),
        ("objective", "ppo"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidParameter, match=name):
        Recipe.of({name: value})
