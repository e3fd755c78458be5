"""The shipped model: its size, and two rows of its card measured again."""

import json

import pytest
import torch
from safetensors import safe_open

from personalize import pocket
from personalize.model.loading import load_base
from personalize.recipes.measure import Meter, single
from personalize.world.preferences import Preference

MAX_BYTES = 8 * 2**20
WEIGHTS = pocket.path() / "model.safetensors"


def test_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= MAX_BYTES


def test_package_data_is_complete() -> None:
    names = {path.name for path in pocket.path().iterdir()}
    needed = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert needed | {"model.safetensors", "card.json", "README.md"} <= names


def test_the_weights_are_stored_in_half_and_computed_in_full_precision() -> None:
    with safe_open(WEIGHTS, framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
    base = load_base("pocket", device="cpu")
    assert base.dtype == torch.float32 and base.config.model_type == "llama"


def test_the_card_says_what_the_model_is_not() -> None:
    card = (pocket.path() / "README.md").read_text(encoding="utf-8")
    assert "What it is." in card and "What it is not." in card and "An assistant." in card


def test_the_context_is_1024_tokens() -> None:
    config = json.loads((pocket.path() / "config.json").read_text(encoding="utf-8"))
    assert config["max_position_embeddings"] == 1024


@pytest.mark.parametrize("preference", [Preference("length", "short"), Preference("format", "bullets")], ids=str)
def test_card_rows_hold_when_measured_again(preference: Preference) -> None:
    card = json.loads((pocket.path() / "card.json").read_text(encoding="utf-8"))
    again = single(Meter(pocket.path(), seed=1), "block", preference, 128)
    printed = next(row for row in card if (row["skill"], row["row"]) == (again.skill, again.row))
    assert printed["n"] >= 400
    assert again.low <= printed["high"]
    assert printed["low"] <= again.high
