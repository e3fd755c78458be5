"""A re-computation against the life that it stands for: one in which the turn never was."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from adapters_store.types import NewTurn
from personalize import EngineSettings, Personalizer, ServiceSettings, Settings
from personalize.rendering import as_sampled
from personalize.types import LearningState, Message, Outcome
from tests.templates import VOCAB_SIZE, plain_tokenizer, source

TURNS = (
    ("Tell me about Berlin.", "Berlin is the capital of Germany; Paris is the capital of France.", "one sentence"),
    ("And the fox?", "The quick brown fox jumps over the lazy dog.", "without a list and without emoji"),
    ("What is tea?", "Tea is a drink that is made of leaves and hot water.", "please answer in French"),
    ("And the sea?", "The sea is wide and blue and full of fish.", "shorter"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    plain_tokenizer(source("trimmed")).save_pretrained(folder)
    return folder


def settings(model: Path, home: Path) -> Settings:
    # "always": every follow-up is to make a version here, whatever a random model thinks of it
    service, engine = ServiceSettings(learning="always", max_tokens=8), EngineSettings(max_num_seqs=2)
    recipe = {"lr": 1e-3, "num_steps": 2, "block_size": 2, "replay": 2}
    return Settings(model=str(model), home=home, device="cpu", service=service, engine=engine, recipe=recipe)


def turn_id(place: int) -> str:
    """The same in every home: it seeds a new adapter."""
    return f"{place + 1:032x}"


async def lived(app: Personalizer, places) -> None:
    """Let alice have had these turns, one after the other."""
    user, renderer = app.store.ensure_user("alice"), app._opened.renderer
    for place in places:
        question, reply, follow_up = TURNS[place]
        completion = as_sampled(renderer, reply)
        turn = NewTurn(
            user_id=user.user_id, request_id=f"r{place}", messages=(("user", question),),
            prompt_ids=renderer.render((Message("user", question),)), completion_ids=completion.token_ids,
            completion_mask=completion.mask, reply_text=reply, finish_reason="stop",
            base_digest=app._opened.base_digest, outcome="skipped_first_message", turn_id=turn_id(place),
        )  # fmt: skip
        app.store.record_turn(turn)
        update = app.store.queue_follow_up(user.user_id, turn_id(place), f"f{place}", follow_up)
        app._consumer.wake()
        assert await app.settled("alice", 60)
        assert (await app.update(update.update_id)).outcome is Outcome.APPLIED


def head(app: Personalizer):
    return app.store.head(app.store.find_user("alice").user_id, app._opened.base_digest)


async def never_had(model: Path, home: Path, undone: int):
    """The head of a life without that turn."""
    async with Personalizer.open(settings=settings(model, home)) as app:
        await lived(app, [place for place in range(len(TURNS)) if place != undone])
        return head(app)


@pytest.mark.slow  # loads torch and a model per life
@pytest.mark.parametrize("undone", [0, 1, 2])
def test_a_recomputation_is_the_life_in_which_the_turn_never_was_bit_for_bit(model, tmp_path, undone):
    """Updates draw nothing at random, and a new adapter is seeded by its first turn: so here it is exact."""

    async def main():
        expected = await never_had(model, tmp_path / "never", undone)
        async with Personalizer.open(settings=settings(model, tmp_path / "undone")) as app:
            await lived(app, range(len(TURNS)))
            replaced = head(app)
            report = await app.undo_turn("alice", turn_id(undone))
            found = head(app)
            assert (report.status, report.outcomes) == ("recomputed", {"applied": 3 - undone})
            assert report.start == (undone or None) and found.number == report.version
            assert found.digest == expected.digest != replaced.digest
            assert found.moments_digest == expected.moments_digest
            assert LearningState.from_json(found.state) == LearningState.from_json(expected.state)
            # and the user learns on
            await app.undo("alice")
            assert head(app) == replaced

    asyncio.run(main())


@pytest.mark.slow  # loads torch and a model
@pytest.mark.parametrize("keep", [True, False])
def test_adam_goes_on_where_the_parent_ended_where_the_recipe_says_so(model, tmp_path, keep):
    """From the store: publishing brings the moments to a place of their own, and the next lesson finds them there."""

    async def main():
        chosen = settings(model, tmp_path)
        async with Personalizer.open(settings=replace(chosen, recipe={**chosen.recipe, "keep_moments": keep})) as app:
            await lived(app, range(3))
            file = app.store.moments_path(head(app))
            assert (file is not None) == keep
            assert file is None or load_file(file)["step"].item() == 3 * 2

    asyncio.run(main())
