import json
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config

from personalize.config import EngineSettings
from personalize.errors import InvalidParameter, ModelError, TemplateError
from personalize.model.digest import folder_digest
from personalize.model.loading import load_base
from personalize.types import Message
from tests.templates import VOCAB_SIZE, tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).half().save_pretrained(folder)
    tokenizer("trimmed").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_local_folder_opens_as_a_base_that_renders_and_computes_in_fp32(saved):
    base = load_base(saved, device="cpu", settings=EngineSettings(max_model_len=128))
    assert base.dtype == torch.float32 and base.max_model_len == 128
    assert base.renderer is not None and base.renderer.max_model_len == 128
    ids = base.renderer.render((Message("user", "hello"),))
    stock = LlamaForCausalLM.from_pretrained(saved, dtype=torch.float32)
    with torch.no_grad():
        logits = base.head(base.hidden(torch.tensor([ids])))
        torch.testing.assert_close(logits, stock(input_ids=torch.tensor([ids])).logits)
    with pytest.raises(InvalidParameter, match="2 to 512"):
        load_base(saved, device="cpu", settings=EngineSettings(max_model_len=513))


def test_the_digest_names_content_not_place(saved, copy):
    assert folder_digest(copy) == folder_digest(saved)
    (copy / "README.md").write_text("a word about the model")
    assert folder_digest(copy) == folder_digest(saved)
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        original = (copy / name).read_bytes()
        (copy / name).write_bytes(original + b" ")
        assert folder_digest(copy) != folder_digest(saved), name
        (copy / name).write_bytes(original)
    assert folder_digest(copy) == folder_digest(saved)


def test_shards_are_part_of_the_digest(saved, copy):
    model = LlamaForCausalLM.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="40KB")
    digest = folder_digest(copy)
    assert digest != folder_digest(saved) and load_base(copy, device="cpu").base_digest == digest
    shard = sorted(copy.glob("model-*.safetensors"))[-1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert folder_digest(copy) != digest


def test_what_cannot_be_loaded_is_a_model_error(copy, tmp_path):
    with pytest.raises(ModelError, match=r"cannot load the model.*no such folder"):
        load_base(tmp_path / "nowhere", device="cpu")
    with pytest.raises(ModelError):
        load_base("no-such-organisation/no-such-model", device="cpu")
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    with pytest.raises(ModelError, match="cannot load the model"):
        load_base(copy, device="cpu")
    weights.unlink()
    with pytest.raises(ModelError):
        load_base(copy, device="cpu")
    T5Config().save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError):
        load_base(tmp_path / "t5", device="cpu")


def test_weights_that_are_missing_are_never_made_up(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="missing"):
        load_base(copy, device="cpu")


def test_a_model_without_a_chat_template_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(TemplateError):
        load_base(copy, device="cpu")


def test_code_in_a_model_folder_is_never_run(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "sly", "auto_map": {"AutoConfig": "sly.Config", "AutoModelForCausalLM": "sly.Model"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "sly.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ModelError):
        load_base(copy, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named(saved):
    with pytest.raises(ModelError, match="allowed here: 'cpu' or 'auto'"):
        load_base(saved, device="cuda")
    assert load_base(saved, device="auto").device.type == "cpu"
