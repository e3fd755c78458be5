"""The shipped model: its size, and two rows of its card measured again."""

import json

import pytest

from personalize import pocket
from personalize.recipes.measure import Meter, single
from personalize.world.preferences import Preference

MAX_BYTES = 8 * 2**20
WEIGHTS = pocket.path() / "model.safetensors"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="no model shipped: the recipe has not been exported yet")


def test_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("preference", [Preference("length", "short"), Preference("format", "bullets")], ids=str)
def test_card_rows_hold_when_measured_again(preference: Preference) -> None:
    card = json.loads((pocket.path() / "card.json").read_text(encoding="utf-8"))
    again = single(Meter(pocket.path(), seed=1), "block", preference, 128)
    printed = next(row for row in card if (row["skill"], row["row"]) == (again.skill, again.row))
    assert printed["n"] >= 400
    assert again.low <= printed["high"]
    assert printed["low"] <= again.high
