"""What is refused as an adapter: damaged, hostile, or not plain LoRA; and vLLM's published rules for what we write."""

import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_store import check_folder
from adapters_store.errors import AdapterCorrupt, AdapterInvalid, AdapterMismatch
from adapters_store.folder import folder_digest
from adapters_store.header import parse_json, read_header

A = "base_model.model.model.layers.0.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.q_proj.lora_B.weight"


@pytest.fixture
def folder(adapter, tmp_path):
    return adapter(tmp_path / "folder")


def rewrite(folder, change=lambda header: None, data=None, cut=None):
    """Change the header of the weights, their bytes, or both."""
    path = folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    replaced = change(header)
    text = json.dumps(replaced if replaced is not None else header).encode()
    path.write_bytes((len(text).to_bytes(8, "little") + text + (raw[8 + length :] if data is None else data))[:cut])


def reconfigure(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sound_folder_is_described(adapter, tmp_path):
    modules = {"model.layers.0.q_proj": (6, 4), "model.layers.10.mlp.down_proj": (8, 3)}
    info = check_folder(adapter(tmp_path / "x", rank=3, modules=modules))
    assert (info.rank, info.lora_alpha, info.target_modules, info.modules) == (3, 4, ("q_proj",), modules)
    assert (info.dtypes, info.max_lora_rank) == (frozenset({"F32"}), 8)
    assert info.num_bytes == sum(path.stat().st_size for path in (tmp_path / "x").iterdir())


def test_the_format_is_the_one_of_safetensors(folder):
    safe = pytest.importorskip("safetensors")
    with safe.safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
        assert {key: list(file.get_slice(key).get_shape()) for key in file.keys()} == {A: [2, 6], B: [4, 2]}  # noqa: SIM118


@pytest.mark.parametrize(
    ("rank", "setting"), [(1, 1), (2, 8), (8, 8), (9, 16), (64, 64), (65, 128), (300, 320), (321, 512), (512, 512)]
)
def test_every_rank_fits_a_setting_of_vllm(adapter, tmp_path, rank, setting):
    assert check_folder(adapter(tmp_path / "x", rank=rank)).max_lora_rank == setting


VLLM_KEY = re.compile(r"base_model\.model\..+\.lora_[AB]\.weight")


def test_written_folders_keep_vllms_rules(hand):
    """The checks of vllm/lora/peft_helper.py and of its weight loader, written down once more and apart."""
    folder = hand.store.path(hand.publish(hand.user()))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert {"r", "lora_alpha", "target_modules"} <= set(config)
    assert not config.get("modules_to_save") and not config.get("use_dora") and config.get("bias", "none") == "none"
    assert config["r"] <= max((1, 8, 16, 32, 64, 128, 256, 320, 512))
    keys = read_header(folder / "adapter_model.safetensors", 10**9)
    assert all(VLLM_KEY.fullmatch(key) for key in keys)
    assert {key.rsplit(".", 3)[1] for key in keys} <= set(config["target_modules"])


@pytest.mark.slow  # imports PEFT
def test_peft_itself_opens_what_the_check_takes(tmp_path):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    layer = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=False))
    model = peft.get_peft_model(layer, peft.LoraConfig(r=2, target_modules=["0"], task_type="FEATURE_EXTRACTION"))
    model.save_pretrained(tmp_path / "saved")
    info = check_folder(tmp_path / "saved")
    assert (info.rank, info.modules) == (2, {"0": (6, 4)})


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"bias": "all"},
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"layer_replication": [[0, 1]]},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["x"]},
        {"fan_in_fan_out": True},
        {"lora_bias": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": 1},
        {"next_years_feature": {"on": 1}},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}},
        {"auto_mapping": {"parent_library": "transformers.x; os"}},
        {"r": 0},
        {"r": 513},
        {"r": "8"},
        {"r": True},
        {"r": 3},
        {"lora_alpha": 0},
        {"lora_alpha": None},
        {"target_modules": []},
        {"target_modules": None},
        {"target_modules": [1]},
    ],
)
def test_what_is_not_plain_lora_is_a_mismatch(folder, changes):
    reconfigure(folder, **changes)
    with pytest.raises(AdapterMismatch):
        check_folder(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "init_lora_weights": "gaussian",
            "lora_dropout": 0.1,
            "task_type": "CAUSAL_LM",
            "megatron_core": "megatron.core",
        },
        {"auto_mapping": {"parent_library": "transformers.models.llama", "base_model_class": "LlamaForCausalLM"}},
        {"target_modules": "all-linear", "next_years_feature": None},
    ],
)
def test_fields_that_leave_it_plain_are_taken(folder, changes):
    reconfigure(folder, **changes)
    check_folder(folder)


def shape(key, value):
    return lambda header: header[key].update(shape=value)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop(A),
        lambda header: header.update({"lm_head.weight": {"dtype": "F32", "shape": [0], "data_offsets": [80, 80]}}),
        lambda header: header[A].update(dtype="F64"),
        lambda header: header[A].update(dtype="Q4"),
        lambda header: header[A].update(dtype=["F32"]),
        lambda header: header[A].update(data_offsets=[0, 44]),
        lambda header: header[A].update(data_offsets=[4, 52]),
        lambda header: header[A].update(data_offsets=[48, 0]),
        lambda header: header[A].update(data_offsets=[-48, 0]),
        lambda header: header[A].update(data_offsets=[0, 48, 50]),
        lambda header: header[A].update(extra=1),
        lambda header: header[B].update(data_offsets=[0, 32]),
        lambda header: header.update(__metadata__={"x": 1}),
        lambda header: header.update(__metadata__=[]),
        shape(A, [12]),
        shape(A, [2, 2, 3]),
        shape(A, [2.0, 6]),
        shape(A, [True, 12]),
        shape(A, [-2, -6]),
        shape(A, [2**62, 2**62]),
        shape(A, "26"),
        lambda header: [],
        lambda header: {},
    ],
)
def test_headers_that_do_not_describe_their_file_are_corrupt(folder, change):
    def only_in_place(header):
        result = change(header)
        return result if isinstance(result, list) or result == {} else None

    rewrite(folder, only_in_place)
    with pytest.raises(AdapterCorrupt):
        check_folder(folder)


def test_ranks_and_shapes_agree_with_the_configuration(folder):
    rewrite(folder, lambda header: header[A].update(shape=[3, 4]))
    with pytest.raises(AdapterMismatch, match="r = 2"):
        check_folder(folder)


@pytest.mark.parametrize("cut", [0, 4, 8, 9, 60, -1])
def test_truncated_files_are_corrupt(folder, cut):
    rewrite(folder, cut=cut)
    with pytest.raises(AdapterCorrupt):
        check_folder(folder)


def test_bytes_behind_the_last_tensor_are_corrupt(folder):
    with open(folder / "adapter_model.safetensors", "ab") as file:
        file.write(b"\0")
    with pytest.raises(AdapterCorrupt, match="tensors end"):
        check_folder(folder)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 17 * 2**20, 0, 1])
def test_a_header_length_is_never_trusted(folder, length):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(AdapterCorrupt, match="header"):
        check_folder(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"a":1,"a":2}', '{"a":NaN}', '{"a":1e999}x', "[" * 200_000, '{"a":' * 50_000, "\ufeff{}"],
)
def test_json_that_is_no_plain_object_is_corrupt(text):
    with pytest.raises(AdapterCorrupt):
        parse_json("x", text.encode())


def test_links_devices_and_strangers_are_refused(folder, tmp_path):
    weights = folder / "adapter_model.safetensors"
    for name in ("adapter_model.bin", "tokenizer.json", "x.pkl", ".hidden"):
        (folder / name).write_bytes(b"x")
        with pytest.raises(AdapterCorrupt, match="unexpected"):
            check_folder(folder)
        (folder / name).unlink()
    (folder / "README.md").mkdir()
    with pytest.raises(AdapterCorrupt, match="README"):
        check_folder(folder)
    (folder / "README.md").rmdir()
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterCorrupt):
        check_folder(folder)
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(AdapterCorrupt):
        check_folder(folder)
    (tmp_path / "link").symlink_to(folder)
    for other in (tmp_path / "link", tmp_path / "nowhere"):
        with pytest.raises(AdapterCorrupt, match=r"no[tw]"):
            check_folder(other)


def test_files_beyond_the_limit_are_refused_unread(folder):
    with pytest.raises(AdapterCorrupt, match="100 bytes"):
        check_folder(folder, max_bytes=100)
    os.truncate(folder / "adapter_config.json", 2**40)
    with pytest.raises(AdapterCorrupt, match="adapter_config"):
        check_folder(folder)


@settings(max_examples=400, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_changed_bytes_give_a_sound_folder_or_a_typed_error(tmp_path_factory, edits):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        folder.mkdir()
        (folder / "adapter_config.json").write_text(
            '{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q_proj"]}'
        )
    header = {
        A: {"dtype": "F32", "shape": [2, 6], "data_offsets": [0, 48]},
        B: {"dtype": "F32", "shape": [4, 2], "data_offsets": [48, 80]},
    }
    text = json.dumps(header).encode()
    data = bytearray(len(text).to_bytes(8, "little") + text + bytes(80))
    for position, value in edits:
        data[position % len(data)] = value
    (folder / "adapter_model.safetensors").write_bytes(data)
    try:
        info = check_folder(folder)
    except AdapterInvalid:
        return
    assert info.rank == 2 and len(info.modules) == 1


def test_the_digest_depends_on_every_byte_and_on_where_it_stands(adapter, tmp_path):
    folders = [adapter(tmp_path / str(number), value=number) for number in (1, 1, 2)]
    digests = [folder_digest(folder) for folder in folders]
    assert digests[0] == digests[1] != digests[2]
    (folders[0] / "manifest.json").write_text("{}")
    assert folder_digest(folders[0]) == digests[1], "the manifest is not content"
    config, weights = (folders[0] / name for name in ("adapter_config.json", "adapter_model.safetensors"))
    moved = config.read_bytes()[-1:]
    config.write_bytes(config.read_bytes()[:-1])
    weights.write_bytes(moved + weights.read_bytes())
    assert folder_digest(folders[0]) != digests[1]
