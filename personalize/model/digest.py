"""The digest that ties adapters to a base model: what the model is, not where it lies or on what it runs."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from personalize.errors import ModelError

_BESIDE = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def folder_digest(folder: Path) -> str:
    """Return 64 hex digits over weights, configuration, tokenizer and chat template of a model folder.

    Files are hashed as stored, so the digest is the same on a CPU in fp32 and on a GPU in bf16.
    """
    digest = hashlib.sha256(b"personalize base v1\n")
    for path in _files(folder):
        content = _file_sha256(path)
        digest.update(f"{len(path.name)}:{path.name}:{content}\n".encode())
    return digest.hexdigest()


def module_digest(module: nn.Module, *tags: str) -> str:
    """Return 64 hex digits over names, shapes, dtypes and bytes of a model that was built in memory."""
    digest = hashlib.sha256(b"personalize module v1\n")
    for tag in tags:
        digest.update(f"{len(tag)}:{tag}\n".encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{len(name)}:{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in _BESIDE if (folder / name).is_file())
    yield from weight_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that transformers loads from ``folder``, the shards of an index in its order.

    Raises:
        ModelError: there are none.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return [folder / shard for shard in shards]
    raise ModelError(f"{folder.name}: no model weights; expected one of {', '.join(_WEIGHTS)} or an index of shards")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
