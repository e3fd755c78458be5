"""The same way with a real model: a local folder with random weights, torch, and stock PEFT as the judge."""

import asyncio
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig

from personalize import EngineSettings, Message, Outcome, Personalizer, SamplingParams, ServiceSettings, Settings
from personalize.types import ChatRequest
from tests.service.support import until
from tests.templates import VOCAB_SIZE, plain_tokenizer, source

GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


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
    # "always": a random model's replies need not move, and every follow-up is to make a version here
    service = ServiceSettings(learning="always", max_tokens=16)
    engine = EngineSettings(max_num_seqs=4)
    recipe = {"lr": 1e-3, "num_steps": 1}  # a random model falls silent where it is pulled hard
    return Settings(model=str(model), home=home, device="cpu", service=service, engine=engine, recipe=recipe)


async def say(app, user, *texts, sampling=GREEDY):
    """A cut reply teaches nothing, so a first reply is cut by its reader instead of by the cap."""
    messages = tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts))
    return (await app.complete(ChatRequest(messages, user, sampling)))[0]


async def cut_reply(app, user, text):
    """The first words of a reply, as a reader who stops reading has them."""
    chunks, shown = app.stream(ChatRequest((Message("user", text),), user, GREEDY)), ""
    while len(shown) < 4:
        shown += (await anext(chunks)).text
    await chunks.aclose()
    await until(lambda: app._chats.idle)
    return shown


@pytest.mark.slow  # loads torch, transformers and PEFT
def test_a_follow_up_becomes_a_version_that_serves_and_that_stock_peft_agrees_with(model, tmp_path):
    async def main():
        async with Personalizer.open(settings=settings(model, tmp_path)) as app:
            before = {user: (await say(app, user, "a fresh question")).text for user in ("alice", "bob")}
            assert before["alice"] == before["bob"]
            for number in range(3):
                shown = await cut_reply(app, "alice", f"question {number}")
                after = await say(app, "alice", f"question {number}", shown, f"no, shorter {number}")
                assert after.outcome is Outcome.QUEUED and await app.settled("alice", 60)
                (newest, *_) = await app.updates("alice")
                assert (await app.outcome(after.request_id), newest.version) == (Outcome.APPLIED, number + 1), newest
            fresh = (Message("user", "a fresh question"),)
            replies = await asyncio.gather(say(app, "alice", fresh[0].content), say(app, "bob", fresh[0].content))
            assert [reply.adapter_version for reply in replies] == [3, None]
            assert replies[1].text == before["bob"]
            version = app.store.version(app.store.find_user("alice").user_id, 3)
            turn = app.store.load_turn(replies[0].turn_id)
            assert await app.versions("bob") == ()
            judge(model, app.store.path(version), turn)

    asyncio.run(main())


def judge(model: Path, adapter: Path, turn) -> None:
    """Stock PEFT, alone, gives the recorded ids."""
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(adapter)).eval()
    with torch.no_grad():
        out = peft.generate(
            input_ids=torch.tensor([turn.prompt_ids]), do_sample=False, max_new_tokens=GREEDY.max_tokens, pad_token_id=2
        )
    new = out[0, len(turn.prompt_ids) :].tolist()
    assert new[: len(turn.completion_ids)] == list(turn.completion_ids) and len(turn.completion_ids) > 4
