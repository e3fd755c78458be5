"""Logs and rebase on real models: two tiny ones with random weights and different chat templates."""

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from personalize import EngineSettings, Personalizer, SamplingParams, ServiceSettings, Settings
from personalize.errors import TemplateError
from personalize.types import Outcome
from tests.service.support import says
from tests.templates import VOCAB_SIZE, plain_tokenizer, source

CHAT = says(
    "Tell me about Berlin.",
    "Berlin is the capital of Germany; Paris is the capital of France.",
    "Please answer in one short sentence.",
    "The quick brown fox jumps over the lazy dog.",
    "without a list and without emoji",
).messages


def tiny(folder: Path, template: str, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    plain_tokenizer(source(template)).save_pretrained(folder)
    return folder


def settings(model: Path, home: Path) -> Settings:
    service, engine = ServiceSettings(learning="always", max_tokens=8), EngineSettings(max_num_seqs=2)
    recipe = {"lr": 1e-3, "num_steps": 1}
    return Settings(model=str(model), home=home, device="cpu", service=service, engine=engine, recipe=recipe)


@pytest.mark.slow  # loads torch, transformers and three models
def test_a_log_teaches_one_model_and_a_rebase_another(tmp_path):
    one, two = tiny(tmp_path / "one", "trimmed", 0), tiny(tmp_path / "two", "strict_alternation", 1)
    home = tmp_path / "home"

    async def main():
        async with Personalizer.open(settings=settings(one, home)) as app:
            lessons = await app.learn_from("alice", CHAT)
            assert [lesson.outcome for lesson in lessons] == [Outcome.QUEUED] * 2
            assert await app.settled("alice", 60)
            ends = [await app.update(str(lesson.update_id)) for lesson in lessons]
            assert [end.outcome for end in ends] == [Outcome.APPLIED] * 2, ends
            assert all(end.metrics["num_trained_tokens"] > 4 for end in ends)
            assert (await app.learn_from("alice", CHAT))[0].outcome is Outcome.SKIPPED_DUPLICATE
        async with Personalizer.open(settings=settings(two, home)) as app:
            report = await app.rebase("alice")
            assert (report.status, report.num_turns, report.outcomes) == ("rebuilt", 2, {"applied": 2})
            reply = await app.chat("alice", "fresh", sampling=SamplingParams(temperature=0.0, max_tokens=4))
            assert reply.adapter_version == report.version == 3
            with_it, without = (await app.fingerprint(["alice"]))["alice"], (await app.fingerprint(["bob"]))["bob"]
            assert with_it.partition(":")[2] != without.partition(":")[2]

    asyncio.run(main())


@pytest.mark.slow  # loads torch and transformers
def test_a_model_without_a_chat_template_is_a_clear_error(tmp_path):
    folder = tiny(tmp_path / "plain", "trimmed", 0)
    tokenizer = plain_tokenizer(source("trimmed"))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)

    async def main():
        await Personalizer.open(settings=settings(folder, tmp_path / "home"))

    with pytest.raises(TemplateError, match="no chat template; a chat model is needed"):
        asyncio.run(main())
