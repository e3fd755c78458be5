"""The KL to base, from a user's own export, and the smoke size of the whole study."""

import asyncio
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from personalize.config import LoraSettings
from personalize.evaluation.study.command import main
from personalize.evaluation.study.drift import Drift, exported_head
from personalize.evaluation.study.scripts import CONTROLS
from personalize.model.folder import new_adapter, write_adapter
from personalize.model.loading import load_base
from tests.service.support import opened, taught
from tests.templates import VOCAB_SIZE, plain_tokenizer, source


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    plain_tokenizer(source("trimmed")).save_pretrained(folder)
    return load_base(folder, device="cpu")


def test_drift_is_zero_for_a_new_adapter_and_grows_with_the_weights(base, tmp_path):
    drift, tensors, found = Drift(base), new_adapter(base, LoraSettings(r=4, lora_alpha=8), seed=0), []
    for scale in (0.0, 0.02, 0.1):
        for index, b in enumerate(tensors.b.values()):
            b.normal_(std=1.0, generator=torch.Generator().manual_seed(index)).mul_(scale)
        write_adapter(tmp_path / str(scale), tensors, base)
        found.append(drift.kl(tmp_path / str(scale)))
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[0] < found[1] < found[2]


def test_the_exported_head_is_the_version_that_serves(tmp_path):
    async def play() -> None:
        async with opened(tmp_path / "home") as app:
            await taught(app)
            await taught(app, "another", "no, longer")
            first, last = sorted(await app.versions("alice"), key=lambda version: version.number)
            for version in (last, first):
                await app.rollback("alice", version.number)
                folder = await exported_head(app, "alice", tmp_path / str(version.number))
                assert folder is not None and (folder / "adapter_config.json").is_file()
                assert f"@{version.number}-{version.digest[:16]}" in folder.name
            await app.reset("alice")
            assert await exported_head(app, "alice", tmp_path / "base") is None

    asyncio.run(play())


@pytest.mark.timeout(900)  # far more than it takes, unless others are using the machine
@pytest.mark.slow  # every control on the embedded model, with a handful of turns: about a minute
def test_the_smoke_study_teaches_and_measures_every_control(tmp_path: Path):
    out = tmp_path / "results.jsonl"
    main(["--size", "smoke", "--out", str(out), "--figures", str(tmp_path)])
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert {line["control"] for line in lines} == {"", "life", *CONTROLS}
    learning = [line for line in lines if line["arm"] == "rolling-block" and line["control"] == "" and line["turn"]]
    assert learning[-1]["bytes"] > 0 and learning[-1]["update_ms"] > 0
    assert any(line["kl"] for line in learning), "an update moves the model"
    assert all(line["bytes"] == 0 for line in lines if line["recipe"] == "-"), "references are never trained"
    assert (tmp_path / "report.md").is_file() and (tmp_path / "docs" / "figures" / "learning.json").is_file()
