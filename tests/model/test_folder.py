import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters_store.folder import folder_digest
from personalize.config import LoraSettings
from personalize.errors import AdapterCorrupt, AdapterMismatch
from personalize.model.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    content_digest,
    new_adapter,
    read_adapter,
    read_version,
    write_adapter,
)
from personalize.types import AdapterRef
from tests.model.tiny import random_adapter, tiny_base

BASE = tiny_base()


@pytest.fixture
def folder(tmp_path):
    write_adapter(tmp_path / "adapter", random_adapter(BASE, 1), BASE)
    return tmp_path / "adapter"


def edit_config(folder, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def edit_weights(folder, change):
    weights = load_file(folder / WEIGHTS_FILE)
    change(weights)
    save_file(weights, folder / WEIGHTS_FILE)


def first(weights):
    return sorted(weights)[0]


def test_what_was_written_is_read_bit_for_bit(folder):
    written, read = random_adapter(BASE, 1), read_adapter(folder, BASE)
    assert (read.r, read.lora_alpha, read.target_modules) == (4, 8, tuple(BASE.targets))
    for (name, mine), (other, theirs) in zip(read.named_parameters(), written.named_parameters(), strict=True):
        assert name == other and torch.equal(mine, theirs)


def test_endings_are_written_where_they_mean_the_same_layers(tmp_path):
    write_adapter(tmp_path / "all", random_adapter(BASE, 1), BASE)
    some = random_adapter(BASE, 1, only="layers.1.mlp")
    write_adapter(tmp_path / "some", some, BASE)
    targets = [json.loads((tmp_path / n / CONFIG_FILE).read_text())["target_modules"] for n in ("all", "some")]
    assert targets[0] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert targets[1] == sorted(some.target_modules)
    assert read_adapter(tmp_path / "some", BASE).target_modules == some.target_modules


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"peft_type": "VERA"}, AdapterMismatch, "expected 'LORA'"),
        ({"use_dora": True}, AdapterMismatch, "use_dora = True"),
        ({"use_rslora": True}, AdapterMismatch, "use_rslora"),
        ({"modules_to_save": ["lm_head"]}, AdapterMismatch, "modules_to_save"),
        ({"bias": "all"}, AdapterMismatch, "without bias"),
        ({"init_lora_weights": "pissa"}, AdapterMismatch, "standard start"),
        ({"rank_pattern": {"q_proj": 2}}, AdapterMismatch, "rank_pattern"),
        ({"target_modules": ["q_proj", "nowhere"]}, AdapterMismatch, "nowhere"),
        ({"target_modules": ".*"}, AdapterMismatch, "target_modules"),
        ({"r": 8}, AdapterMismatch, r"shape \[4, "),
        ({"r": "4"}, AdapterCorrupt, "whole number"),
        ({"r": 100_000}, AdapterMismatch, "above the limit"),
        ({"lora_alpha": -1}, AdapterCorrupt, "lora_alpha"),
    ],
    ids=str,
)
def test_a_configuration_that_is_not_plain_lora_is_refused(folder, change, error, says):
    edit_config(folder, **change)
    with pytest.raises(error, match=says):
        read_adapter(folder, BASE)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda w: w.pop(first(w)), AdapterMismatch, "1 tensors missing, 0 unknown"),
        (lambda w: w.update(extra=torch.zeros(1)), AdapterMismatch, "0 tensors missing, 1 unknown, such as extra"),
        (lambda w: w.update({first(w): torch.zeros(4, 3)}), AdapterMismatch, r"shape \[4, 3\], expected \[4, "),
        (lambda w: w.update({first(w): w[first(w)].double()}), AdapterMismatch, "type 'F64'"),
        (lambda w: w[first(w)].fill_(float("nan")), AdapterCorrupt, "NaN"),
        (lambda w: w[first(w)].fill_(float("inf")), AdapterCorrupt, "infinite"),
    ],
    ids=["missing", "unknown", "shape", "type", "nan", "inf"],
)
def test_weights_that_do_not_fit_are_refused(folder, change, error, says):
    edit_weights(folder, change)
    with pytest.raises(error, match=says):
        read_adapter(folder, BASE)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 8, struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 4) + b"[[[[", b"garbage" * 100],
    ids=["empty", "zeros", "header too long", "no json", "garbage"],
)
def test_a_file_that_is_no_safetensors_file_is_refused(folder, content):
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(AdapterCorrupt):
        read_adapter(folder, BASE)


def test_truncated_padded_and_missing_files_are_refused(folder):
    content = (folder / WEIGHTS_FILE).read_bytes()
    for damaged in (content[:-1], content + b"\x00"):
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(AdapterCorrupt):
            read_adapter(folder, BASE)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterCorrupt, match="cannot be read"):
        read_adapter(folder, BASE)
    (folder / CONFIG_FILE).write_text("[" * 100_000)
    with pytest.raises(AdapterCorrupt, match="not JSON"):
        read_adapter(folder, BASE)


def test_an_oversized_file_is_refused_before_it_is_read(folder):
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.truncate(1 << 40)  # sparse: reading it would need a terabyte
    with pytest.raises(AdapterCorrupt, match="expected a file of at most"):
        read_adapter(folder, BASE)


def test_an_adapter_of_another_base_is_refused(folder):
    with pytest.raises(AdapterMismatch):
        read_adapter(folder, tiny_base("gpt_neox"))
    with pytest.raises(AdapterMismatch):
        write_adapter(folder, random_adapter(tiny_base("phi3"), 1), BASE)


def test_non_finite_tensors_are_not_written(tmp_path):
    adapter = random_adapter(BASE, 1)
    next(iter(adapter.a.values()))[0, 0] = float("nan")
    with pytest.raises(AdapterCorrupt):
        write_adapter(tmp_path / "adapter", adapter, BASE)
    assert not (tmp_path / "adapter").exists()


def test_a_new_adapter_starts_like_peft_and_from_its_seed():
    one, same, other = (new_adapter(BASE, LoraSettings(), seed) for seed in (1, 1, 2))
    assert one.r == 8 and one.scaling == 2.0 and one.target_modules == tuple(BASE.targets)
    assert all(not tensor.any() for tensor in one.b.values())
    for name, a in one.a.items():
        bound = BASE.targets[name][0] ** -0.5
        assert torch.equal(a, same.a[name]) and not torch.equal(a, other.a[name])
        assert a.abs().max() <= bound and a.abs().max() > 0.9 * bound
    some = new_adapter(BASE, LoraSettings(r=2, target_modules=("q_proj", "model.layers.0.mlp.up_proj")), 1)
    assert len(some.a) == 3
    with pytest.raises(AdapterMismatch, match="nowhere"):
        new_adapter(BASE, LoraSettings(target_modules=("nowhere",)), 1)


def version_of(folder, path=None):
    """Name a folder as the store does when it publishes it."""
    return AdapterRef(f"u_{1:032x}@1-{folder_digest(folder)[:16]}", str(path or folder))


def test_the_digest_is_the_stores(folder):
    content = [(folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    assert content_digest(*content) == folder_digest(folder)
    assert content_digest(content[0] + content[1][:1], content[1][1:]) != folder_digest(folder)


def test_a_version_is_read_only_as_it_was_published(folder, tmp_path):
    ref, sound = version_of(folder), random_adapter(BASE, 1)
    for mine, theirs in zip(read_version(ref, BASE).parameters(), sound.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    (folder / "manifest.json").write_text("{}")  # not content
    assert read_version(ref, BASE).r == 4
    write_adapter(tmp_path / "other", random_adapter(BASE, 2), BASE)
    with pytest.raises(AdapterCorrupt, match="it was changed"):
        read_version(version_of(folder, path=tmp_path / "other"), BASE)


@pytest.mark.parametrize("place", [-1, -4096, 200])
def test_one_flipped_bit_is_found_wherever_it_is(folder, place):
    """At the end, in the middle, and in the header: finite values of the right shape, but not what was published."""
    ref = version_of(folder)
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[place] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(AdapterCorrupt, match="it was changed"):
        read_version(ref, BASE)


def test_another_scaling_is_another_content(folder):
    ref = version_of(folder)
    edit_config(folder, lora_alpha=16)
    assert read_adapter(folder, BASE).scaling == 4
    with pytest.raises(AdapterCorrupt, match="it was changed"):
        read_version(ref, BASE)


def test_a_manifest_that_was_changed_too_hides_nothing(folder):
    """Who writes the folder writes the manifest as well; the name comes from elsewhere."""
    ref = version_of(folder)
    edit_weights(folder, lambda weights: weights[first(weights)].add_(1.0))
    (folder / "manifest.json").write_text(json.dumps({"digest": folder_digest(folder)}))
    with pytest.raises(AdapterCorrupt, match="it was changed"):
        read_version(ref, BASE)


def test_the_bytes_that_are_digested_are_the_bytes_that_are_loaded(folder, monkeypatch):
    """Both files are opened once: nobody can put others in their place in between."""
    ref, opened = version_of(folder), []
    real = type(folder).open
    monkeypatch.setattr(type(folder), "open", lambda self, *words: opened.append(self.name) or real(self, *words))
    read_version(ref, BASE)
    assert opened == [CONFIG_FILE, WEIGHTS_FILE]
